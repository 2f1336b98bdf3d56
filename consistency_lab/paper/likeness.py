"""The main table: how alike are the models of a family, and of two families, and how good are they?

One row per family and one per pair of families, stored when finished. A family's quality stands beside its consistency: models that
make bad images alike are no evidence. The same table serves every question of the form "what if only this were different": families of
other parametrisations, or families in which one stream of random numbers varies alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval, as_columns, interval_of, mean_interval
from consistency_lab.paper.pairs import pair_table
from consistency_lab.paper.protocol import Classifier, Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.similarity.permutation import LEAST, family_test, square
from consistency_lab.similarity.quality import GAUSSIAN, MEMORISER, TRAINING_IMAGES, measure_quality, reference_samples
from consistency_lab.similarity.statistics import cross_score
from consistency_lab.studies.fleet import Family, check_families

LEAST_COVERED = 0.9  # share of classes that a contrast model must cover
WORST_QUALITY = 2.0  # and how many times the diffusion models' Frechet distance it may have


def likeness_table(
    families: Sequence[Family],
    images: ImageSet,
    held_out: ImageSet,
    rows: Rows,
    protocol: Protocol,
    *,
    classifier: Classifier | None = None,
    crosses: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Scores with intervals within and between families, with quality beside them.

    Args:
        families: of three models or more each. They are trained when a row needs them that is not finished.
        images, held_out: what they were trained on, and real images that they were not.
        rows: where finished rows are kept.
        protocol: how they are measured.
        classifier: gives the features for quality; without it no quality is measured.
        crosses: compare every family with every other that starts from noise of the same shape.
        say: is told what happens.

    Returns:
        One row per family or pair: ``family``, for each metric ``score`` with its interval, ``distance, null``, and for families
        ``frechet`` with its interval over models, ``covered`` and ``fit``: whether a contrast model is no straw man, its Frechet
        distance at most `WORST_QUALITY` times the best diffusion family's and `LEAST_COVERED` of the classes covered; ``outside``, the
        largest share of a model's final pixels beyond [-1.5, 1.5], where a score means little if it is large. For pairs of
        families of `LEAST` models or more each, ``p_any``: the label permutation over metrics and noise levels (max-T).

    Raises:
        UserError: what is no family or image set, or a family of fewer than three models.
    """
    check_families(families)
    for part in (images, held_out):
        check_set(part)
    for family in families:
        if len(family.identities) < 3:
            raise UserError(
                f"the family {family.name!r} has {len(family.identities)} models; an interval over models needs three or more."
            )
    common = {"data": images.fingerprint, **protocol.spec}
    # Asked for by every quality row, and on a large set dear: the optimal denoiser goes through all of it at every step.
    beside = cache(partial(_reference_samples, families, images, protocol))
    measured = {
        "data": images.fingerprint,
        "held_out": held_out.fingerprint,
        "classifier": classifier.spec if classifier else None,
    }
    measured |= {"count": protocol.quality_count, "seed": protocol.seed + 1, "sampler": protocol.quality_sampler.facts}
    table = []
    for family in families:
        say(f"comparing the {len(family.identities)} models of {family.name}")
        own = {"family": family.name, "models": list(family.identities)}
        found = rows.row({"row": "family", **own, **common}, partial(_within, family, images, protocol))
        facts = {"family": family.name, "models": len(family.identities), "diffusion": family.diffusion}
        if classifier is not None:
            found = {
                **found,
                **rows.row(
                    {"row": "quality", **own, **measured},
                    partial(_quality, family, images, held_out, classifier, protocol, beside),
                ),
            }
        table.append({**facts, **found})
    for first, second in combinations(families, 2):
        if not crosses or first.noise_shape != second.noise_shape:
            continue  # they cannot be given the same noise
        say(f"comparing {first.name} with {second.name}")
        both = {"families": [first.name, second.name], "models": [*first.identities, *second.identities]}
        found = rows.row({"row": "cross", **both, **common}, partial(_between, first, second, protocol))
        table.append({"family": f"{first.name} | {second.name}", "models": len(both["models"]), **found})
    frame = pd.DataFrame(table)
    pairs = pair_table(families, images, rows, protocol)
    shares = pairs[pairs["first_family"] == pairs["second_family"]].groupby("first_family")["outside"].max()
    frame["outside"] = frame["family"].map(shares)
    return _judged(frame)


def _within(family: Family, images: ImageSet, protocol: Protocol) -> dict[str, Any]:
    return family_values(family.models(), images, protocol)


def family_values(
    models: Sequence[GenerativeModel], images: ImageSet, protocol: Protocol, ceiling: bool = True
) -> dict[str, Any]:
    """What a row says of models of one family.

    For each metric ``score`` with its interval (over models and noise), ``distance``, ``median_distance``, ``null``, ``ceiling``, the score
    with each closed-form denoiser ``to_*``, and ``along_t``; ``residual_after_*``, the score of what is left when a closed-form denoiser's
    images are taken away; ``curves`` and ``references``: of which metrics there is a curve along t, and of which denoisers a residual;
    ``nearest``, the median squared distance to the nearest training image.
    """
    whole = protocol.compare(models, images, ceiling)
    last = whole.isel(t=-1)
    references = [str(name) for name in last["reference"].values] if "residual_score" in last else []
    values: dict[str, Any] = {"curves": list(protocol.names) if whole.sizes["t"] > 1 else [], "references": references}
    for metric in protocol.names:
        part = last.sel(metric=metric)
        values |= _numbers(metric, interval_of(part, "family_score"), part["distance"], part["null"])
        if "ceiling" in last:
            values[f"{metric}_ceiling"] = float(part["ceiling"].mean())
        for reference in last["reference"].values if "reference_score" in last else []:
            values[f"{metric}_to_{reference}"] = float(part["reference_score"].sel(reference=reference).mean())
        if whole.sizes["t"] > 1:
            values[f"{metric}_along_t"] = _along(whole.sel(metric=metric))
    for reference in references:
        values[f"residual_after_{reference}"] = float(last["residual_score"].sel(reference=reference).mean())
        with_it = last.isel(metric=0).sel(reference=reference)
        values |= as_columns(f"to_{reference}", interval_of(with_it, "reference_mean_score"))  # of mean distances
    values["nearest"] = float(last["nearest_distance"].median())
    return values


def _along(one: xr.Dataset) -> dict[str, list[float]]:
    """The curve of a family over noise levels, for figures: lists over t."""
    curve = {"t": one["t"].values, "log_snr": one["log_snr"].values}
    curve |= as_columns("score", interval_of(one, "family_score"))
    curve |= {key: one[key].mean(("pair", "sample")).values for key in ("distance", "null")}
    return {key: [float(x) if np.isfinite(x) else None for x in values] for key, values in curve.items()}  # type: ignore[misc]


def _between(first: Family, second: Family, protocol: Protocol) -> dict[str, Any]:
    ours, theirs = first.models(), second.models()
    whole = protocol.compare([*ours, *theirs])
    last = whole.isel(t=[-1])
    distance, null = (square(last, key)[: len(ours), len(ours) :, :, 0] for key in ("distance", "null"))
    crossing = (last["first"] < len(ours)) & (last["second"] >= len(ours))
    values: dict[str, Any] = {}
    for m, metric in enumerate(protocol.names):
        interval = cross_score(distance[..., m], null[..., m], len(ours), len(theirs))
        part = last.isel(t=0).sel(metric=metric).isel(pair=np.flatnonzero(crossing.values))
        values |= _numbers(metric, interval, part["distance"], part["null"])
    if min(len(ours), len(theirs)) >= LEAST:
        test = family_test(whole, [model.name for model in ours])
        values |= {"p_any": float(test["p_any"]), "assignments": int(test["assignments"])}
        values |= {f"{metric}_p": float(test["p"].isel(t=-1).sel(metric=metric)) for metric in protocol.names}
    return values


def _numbers(metric: str, interval: Interval, distance: xr.DataArray, null: xr.DataArray) -> dict[str, float]:
    return {
        **as_columns(f"{metric}_score", interval),
        f"{metric}_distance": float(distance.mean()),
        f"{metric}_median_distance": float(distance.median()),
        f"{metric}_null": float(null.mean()),
    }


def _reference_samples(families: Sequence[Family], images: ImageSet, protocol: Protocol) -> dict[str, Tensor]:
    """On the schedule of the first diffusion family, or the paper's where there is none."""
    first = next((family for family in families if family.diffusion), None)
    model = first.models()[0] if first else None
    schedule = model.denoiser.schedule if isinstance(model, DiffusionModel) else SCHEDULES.build("linear")
    return reference_samples(
        images, schedule, SharedNoise(protocol.seed + 1), protocol.quality_count, protocol.quality_sampler
    )


def _quality(
    family: Family,
    images: ImageSet,
    held_out: ImageSet,
    classifier: Classifier,
    protocol: Protocol,
    beside: Callable[[], Mapping[str, Tensor]],
) -> dict[str, Any]:
    models, judge, noise = family.models(), classifier.make(), SharedNoise(protocol.seed + 1)
    options: dict[str, Any] = {
        "count": protocol.quality_count,
        "sampler": protocol.quality_sampler,
        "references": beside(),
    }
    table = measure_quality(models, held_out, judge, training=images, noise=noise, **options)
    frechet = table.isel(measure=0)
    own = frechet.sel(row=[model.name for model in models])
    values: dict[str, Any] = {
        **as_columns("frechet", mean_interval(own["value"].values)),
        "frechet_worst": float(own["value"].max()),
        "covered": int(own["covered"].min()),
    }
    values["classes"] = len(judge.head.bias)
    for name, key in ((TRAINING_IMAGES, "floor"), (GAUSSIAN, "gaussian"), (MEMORISER, "memoriser")):
        values[f"frechet_{key}"] = float(frechet["value"].sel(row=name))
    values["measure"] = str(table["measure"].values[0])
    return values


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``fit`` where quality was measured: True for diffusion families and for others that are no straw man; none for pairs."""
    diffusion = [each is True for each in table.get("diffusion", [])]
    if not any(diffusion) or "frechet" not in table:
        return table
    best = table.loc[diffusion, "frechet"].min()
    good = (table["frechet_worst"] <= WORST_QUALITY * best) & (table["covered"] >= LEAST_COVERED * table["classes"])
    fit = [
        None if np.isnan(frechet) else own or bool(well)
        for frechet, own, well in zip(table["frechet"], diffusion, good, strict=True)
    ]
    table["fit"] = pd.Series(fit, index=table.index, dtype=object)
    return table
