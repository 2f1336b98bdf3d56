"""What the first noise decides, and what the noise on the way: families under stochastic sampling beside deterministic sampling.

The paper's protocol shares both: its sampler is stochastic, and all models meet the same noise at every step. Here each is also shared
alone, so that one sees which of them models agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import as_columns
from consistency_lab.paper.finals import final_distances
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.similarity.statistics import within_score
from consistency_lab.studies.fleet import Family, check_families

STOCHASTIC = "ancestral"
# What the models of a family share -> the method (None: that of the protocol's sampler) and, of model k, the seeds of its first noise and
# of its path.
SHARED: dict[str, tuple[str | None, Callable[[int, int], tuple[int, int]]]] = {
    "first noise, deterministic": (None, lambda seed, k: (seed, seed)),
    "first noise and path": (STOCHASTIC, lambda seed, k: (seed, seed)),
    "first noise alone": (STOCHASTIC, lambda seed, k: (seed, seed + 1 + k)),
    "path alone": (STOCHASTIC, lambda seed, k: (seed + 1 + k, seed)),
}


class TwoSeeds(SharedNoise):
    """Noise whose path has a seed of its own."""

    def __init__(self, seed: int, path: int):
        super().__init__(seed)
        self._of_path = SharedNoise(path)

    def _drawn(self, numbers: tuple[int, ...], sides: tuple[int, ...], stream: str, step: int) -> torch.Tensor:
        drawn = super()._drawn if stream != "path" else self._of_path._drawn
        return drawn(numbers, sides, stream, step)


def sampling_table(
    families: Sequence[Family],
    images: ImageSet,
    rows: Rows,
    protocol: Protocol,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The score of each family by what its models share of the noise, see `SHARED`.

    Args:
        families: of diffusion models, three or more each.
        images: what they were trained on.
        rows: where finished rows are kept.
        protocol: metrics, samples and seed; the stochastic sampler takes as many steps as its sampler.
        say: is told what happens.

    Returns:
        One row per family and kind: ``family``, ``models``, ``shared``, ``method`` (of the sampler), and for each metric ``score`` with its
        interval (over models and samples), ``distance``, ``median_distance`` and ``null``, of the final images. A score is 0 where what is
        shared decides nothing.

    Raises:
        UserError: what is no family or image set, or a family of other models.
    """
    check_families(families)
    check_set(images)
    table = []
    for family in families:
        if not family.diffusion:
            raise UserError(f"{family.name!r} holds no diffusion models; only those have noise on the way.")
        for shared, (method, seeds) in SHARED.items():
            sampler = protocol.sampler if method is None else Sampler(method, protocol.sampler.steps)
            own = {"family": family.name, "models": list(family.identities), "shared": shared, "method": sampler.method}
            say(f"comparing the models of {family.name} that share {shared}")
            spec = {"row": "sampling", **own, "data": images.fingerprint, **protocol.spec}
            found = rows.row(spec, partial(_shared, family, protocol, sampler, seeds))
            table.append({**own, "models": len(family.identities), **found})
    return pd.DataFrame(table)


def _shared(
    family: Family, protocol: Protocol, sampler: Sampler, seeds: Callable[[int, int], tuple[int, int]]
) -> dict[str, Any]:
    models = [model for model in family.models() if isinstance(model, DiffusionModel)]  # the family is one of them
    made = [
        model.generate(TwoSeeds(*seeds(protocol.seed, k)), range(protocol.count), sampler)
        for k, model in enumerate(models)
    ]
    pairs = list(combinations(range(len(models)), 2))
    distance, null = final_distances(made, pairs, protocol.distances)
    square = np.zeros((2, len(models), len(models), *distance.shape[1:]))
    first, second = zip(*pairs, strict=True)
    square[:, first, second] = distance, null
    square[:, second, first] = distance, null
    values: dict[str, Any] = {}
    for m, metric in enumerate(protocol.names):
        values |= as_columns(f"{metric}_score", within_score(square[0][..., m], square[1][..., m], [len(models)]))
        values |= {f"{metric}_distance": float(distance[..., m].mean()), f"{metric}_null": float(null[..., m].mean())}
        values[f"{metric}_median_distance"] = float(np.median(distance[..., m]))
    return values
