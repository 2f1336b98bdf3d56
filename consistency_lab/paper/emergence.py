"""When in training do models begin to agree? The score of a family at each step at which weights were kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import pandas as pd

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.paper.likeness import family_values
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.studies.fleet import Family, check_families
from consistency_lab.training.train import load_snapshots


def emergence_table(
    families: Sequence[Family],
    steps: Mapping[str, Sequence[int]],
    images: ImageSet,
    rows: Rows,
    protocol: Protocol,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The family score over training.

    Args:
        families: of diffusion models that were trained with a store, three or more each.
        steps: family -> steps at which the weights of all its models were kept.
        images: what they were trained on, for the closed-form references.
        rows: where finished rows are kept.
        protocol: how they are measured.
        say: is told what happens.

    Returns:
        One row per family and step: ``family``, ``step``, and for each metric what `family_values` gives, the score with the Gaussian
        and the optimal denoiser among it: what a family learns first, and whether it later memorises.

    Raises:
        UserError: what is no family or image set, a family of other models, or a step at which one kept no weights.
    """
    check_families(families)
    check_set(images)
    table = []
    for family in families:
        if not family.diffusion:
            raise UserError(f"{family.name!r} holds no diffusion models; only those are followed over training.")
        kept = cache(partial(_snapshots, family))  # read once, and only if a row is missing
        for step in steps[family.name]:
            spec = {"row": "emergence", "family": family.name, "models": list(family.identities), "step": step}
            say(f"comparing the models of {family.name} at step {step}")
            compute = partial(_at_step, kept, step, images, protocol)
            found = rows.row({**spec, "data": images.fingerprint, **protocol.spec}, compute)
            table.append({"family": family.name, "step": step, **found})
    return pd.DataFrame(table)


def _snapshots(family: Family) -> dict[str, dict[int, DiffusionModel]]:
    """Name of each model -> step -> the model as it was then."""
    models = [model for model in family.models() if isinstance(model, DiffusionModel)]  # the family is one of them
    return {model.name: dict(load_snapshots(model)) for model in models}


def _at_step(
    kept: Callable[[], dict[str, dict[int, DiffusionModel]]], step: int, images: ImageSet, protocol: Protocol
) -> dict[str, Any]:
    for name, found in kept().items():
        if step not in found:
            raise UserError(f"{name!r} kept no weights at step {step}, but at {', '.join(map(str, found))}.")
    return family_values([found[step] for found in kept().values()], images, protocol, ceiling=False)
