"""The main table: how alike are the models of a family, and of two families, and how good are they?

One row a family and one a pair of families, each kept when it is finished. A family's quality stands beside its consistency: models that
make bad images alike are no evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval
from consistency_lab.metrics.classifier import SmallClassifier
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.statistics import cross_score, pairs_of
from consistency_lab.studies.quality import FLOOR, GAUSSIAN, MEMORISER, quality_table
from consistency_lab.studies.rows import Rows

LEAST_COVERED = 0.9  # share of classes that a contrast model must cover
WORST_QUALITY = 2.0  # and how many times the diffusion models' Frechet distance it may have


def likeness_table(
    families: Mapping[str, Sequence[GenerativeModel]],
    images: ImageSet,
    held_out: ImageSet,
    classifier: SmallClassifier,
    rows: Rows,
    *,
    count: int = 256,
    quality_count: int = 1000,
    metrics: Sequence[str] = ("mse", "cosine"),
    sampler: Sampler | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Scores with intervals within and between families, with quality beside them.

    Args:
        families: name -> models that differ in their seed, three or more each.
        images, held_out: what they were trained on, and real images that they were not.
        classifier: features for quality.
        rows: where finished rows are kept.
        count: samples of the comparison; ``quality_count`` of the quality.
        metrics: distances.
        sampler: of diffusion models.
        seed: of the shared noise of the comparison; quality uses the next one.
        say: is told what happens.

    Returns:
        One row a family or pair of families: ``family``, for each metric ``score, low, high, distance, null``, and for families
        ``frechet, frechet_low, frechet_high`` (means over models), ``covered`` and ``fit``: whether a contrast model is no straw man,
        its Frechet distance at most `WORST_QUALITY` times the best diffusion family's and `LEAST_COVERED` of the classes covered.

    Raises:
        UserError: a family of fewer than three models.
    """
    for name, models in families.items():
        if len(models) < 3:
            raise UserError(
                f"the family {name!r} has {len(models)} models; an interval over models needs three or more."
            )
    sampler = sampler or Sampler()
    common = {
        "metrics": list(metrics),
        "count": count,
        "sampler": vars(sampler),
        "seed": seed,
        "data": images.fingerprint,
    }
    table = []
    for name, models in families.items():
        say(f"comparing the {len(models)} models of {name}")
        spec = {"row": "family", "family": name, "models": [_identity(m) for m in models], **common}
        found = rows.row(spec, lambda m=models: _within(m, images, metrics, sampler, count, seed))  # type: ignore[misc]
        spec = {
            "row": "quality",
            "family": name,
            "models": spec["models"],
            "data": images.fingerprint,
            "count": quality_count,
            "seed": seed + 1,
        }
        spec["classifier"] = classifier.facts
        quality = rows.row(spec, lambda m=models: _quality(m, images, held_out, classifier, quality_count, seed + 1))  # type: ignore[misc]
        diffusion = all(isinstance(model, DiffusionModel) for model in models)
        table.append({"family": name, "models": len(models), "diffusion": diffusion, **found, **quality})
    for (first, ours), (second, theirs) in combinations(families.items(), 2):
        if ours[0].noise_shape != theirs[0].noise_shape:
            continue  # they cannot be given the same noise
        say(f"comparing {first} with {second}")
        spec = {
            "row": "cross",
            "families": [first, second],
            "models": [_identity(m) for m in [*ours, *theirs]],
            **common,
        }
        found = rows.row(spec, lambda a=ours, b=theirs: _between(a, b, metrics, sampler, count, seed))  # type: ignore[misc]
        table.append({"family": f"{first} | {second}", "models": len(ours) + len(theirs), **found})
    return _judged(pd.DataFrame(table))


def _identity(model: GenerativeModel) -> str:
    """What tells a model apart from every other: the hash of its run, or its name where it has none."""
    return str(model.facts.get("run", model.name))


def _within(
    models: Sequence[GenerativeModel], images: ImageSet, metrics: Sequence[str], sampler: Sampler, count: int, seed: int
) -> dict[str, Any]:
    last = compare(
        models, SharedNoise(seed), count=count, metrics=metrics, sampler=sampler, images=images, levels=2
    ).isel(t=-1)
    values: dict[str, Any] = {}
    for metric in metrics:
        part = last.sel(metric=metric)
        interval = Interval(*(part[f"family_{key}"].values for key in ("score", "low", "high")))
        values |= _numbers(metric, interval, part["distance"], part["null"])
        if "ceiling" in last:
            values[f"{metric}_ceiling"] = float(part["ceiling"].mean())
        if "reference_score" in last:
            for reference in last["reference"].values:
                values[f"{metric}_to_{reference}"] = float(part["reference_score"].sel(reference=reference).mean())
    values["nearest"] = float(last["nearest_distance"].median())
    return values


def _between(
    ours: Sequence[GenerativeModel],
    theirs: Sequence[GenerativeModel],
    metrics: Sequence[str],
    sampler: Sampler,
    count: int,
    seed: int,
) -> dict[str, Any]:
    both = [*ours, *theirs]
    last = compare(both, SharedNoise(seed), count=count, metrics=metrics, sampler=sampler, levels=2).isel(t=-1)
    cross = [p for p, (a, b) in enumerate(pairs_of(len(both))) if a < len(ours) <= b]
    values: dict[str, Any] = {}
    for metric in metrics:
        part = last.sel(metric=metric).isel(pair=cross)
        distance, null = (
            part[key].mean("sample").values.astype(np.float64).reshape(len(ours), len(theirs))
            for key in ("distance", "null")
        )
        interval = cross_score(distance, null, len(ours), len(theirs))
        values |= _numbers(metric, interval, part["distance"], part["null"])
    return values


def _numbers(metric: str, interval: Interval, distance: xr.DataArray, null: xr.DataArray) -> dict[str, float]:
    return {
        f"{metric}_score": float(interval.estimate),
        f"{metric}_low": float(interval.low),
        f"{metric}_high": float(interval.high),
        f"{metric}_distance": float(distance.mean()),
        f"{metric}_median_distance": float(distance.median()),
        f"{metric}_null": float(null.mean()),
    }


def _quality(
    models: Sequence[GenerativeModel],
    images: ImageSet,
    held_out: ImageSet,
    classifier: SmallClassifier,
    count: int,
    seed: int,
) -> dict[str, Any]:
    table = quality_table(models, images, held_out, classifier, noise=SharedNoise(seed), count=count)
    frechet = table.isel(measure=0)
    own = frechet.sel(row=[model.name for model in models])
    values: dict[str, Any] = {
        "frechet": float(own["value"].mean()),
        "frechet_worst": float(own["value"].max()),
        "covered": int(own["covered"].min()),
    }
    values["classes"] = len(classifier.head.bias)
    for name, key in ((FLOOR, "floor"), (GAUSSIAN, "gaussian"), (MEMORISER, "memoriser")):
        values[f"frechet_{key}"] = float(frechet["value"].sel(row=name))
    values["measure"] = str(table["measure"].values[0])
    return values


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``fit``: True for diffusion families, and for others that are no straw man; missing for pairs of families."""
    diffusion = [each is True for each in table.get("diffusion", [])]
    if not any(diffusion):
        return table
    best = table.loc[diffusion, "frechet"].min()
    good = (table["frechet_worst"] <= WORST_QUALITY * best) & (table["covered"] >= LEAST_COVERED * table["classes"])
    fit = [
        None if np.isnan(frechet) else own or bool(well)
        for frechet, own, well in zip(table["frechet"], diffusion, good, strict=True)
    ]
    table["fit"] = pd.Series(fit, index=table.index, dtype=object)
    return table
