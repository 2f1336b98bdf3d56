"""Every pair of models by name: what a claim about *every* pair rests on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.studies.fleet import Family, check_families


def pair_table(families: Sequence[Family], images: ImageSet, rows: Rows, protocol: Protocol) -> pd.DataFrame:
    """The score of every pair of models that can be given the same noise, at the end, by the first metric.

    What a claim about *every* pair rests on: intervals over models speak of the mean pair.

    Args:
        families, images, rows, protocol: as for `likeness_table`, with whose walks it shares its own.

    Returns:
        Columns first, second (models), first_family, second_family, diffusion (both are diffusion models), score, and outside: of the two
        models the larger share of final pixels beyond [-1.5, 1.5]. Samples that exploded can be alike too.

    Raises:
        UserError: what is no family or image set.
    """
    check_families(families)
    check_set(images)
    shapes = dict.fromkeys(family.noise_shape for family in families)
    table = []
    for shape in shapes:
        group = [family for family in families if family.noise_shape == shape]
        owner = [family for family in group for _ in family.identities]
        spec = {"row": "pairs", "families": [f.name for f in group], "models": [i for f in group for i in f.identities]}
        found = rows.row({**spec, "data": images.fingerprint, **protocol.spec}, partial(_pairs, group, protocol))
        for a, b, score in zip(found["first"], found["second"], found["score"], strict=True):
            both = owner[a].diffusion and owner[b].diffusion
            names = {"first": found["names"][a], "second": found["names"][b]}
            sides = {"first_family": owner[a].name, "second_family": owner[b].name}
            outside = max(found["outside"][a], found["outside"][b])
            table.append(
                {**names, **sides, "diffusion": both, "score": np.nan if score is None else score, "outside": outside}
            )
    return pd.DataFrame(table)


def _pairs(group: Sequence[Family], protocol: Protocol) -> dict[str, Any]:
    models = [model for family in group for model in family.models()]
    last = protocol.compare(models).isel(t=-1, metric=0)
    scores = [float(x) if np.isfinite(x) else None for x in last["score"].values]
    return {
        "names": [model.name for model in models],
        "first": last["first"].values.tolist(),
        "second": last["second"].values.tolist(),
        "score": scores,
        "outside": last["outside"].mean("sample").values.tolist(),
    }


def every_pair_sentence(pairs: pd.DataFrame) -> str:
    """Is every pair of diffusion models more alike than every pair of other models of one family?"""
    alike = pairs[pairs["diffusion"]].dropna()
    others = pairs[~pairs["diffusion"] & (pairs["first_family"] == pairs["second_family"])].dropna()
    if alike.empty or others.empty:
        return "There are no pairs of both kinds to be compared."
    low = alike.sort_values("score").iloc[0].to_dict()
    high = others.sort_values("score").iloc[-1].to_dict()
    verdict = "lies above" if low["score"] > high["score"] else "does NOT lie above"
    return (
        f"Every one of the {len(alike)} pairs of diffusion models {verdict} every one of the {len(others)} pairs within the other "
        f"families: the lowest is {low['score']:.3f} ({low['first']} with {low['second']}), the highest of the others "
        f"{high['score']:.3f} ({high['first']} with {high['second']})."
    )
