"""What a comparison is read against: the ceiling, the closed-form references, the nearest training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import DEFAULT_REFERENCES, closed_form
from consistency_lab.intervals import Interval, add_interval, stacked
from consistency_lab.metrics.distances import Distance, MeanSquaredError, nearest
from consistency_lab.similarity.pairwise import embedded, groups_of, pairwise_distances, scored
from consistency_lab.similarity.statistics import Blocks, pair_score
from consistency_lab.similarity.trajectories import (
    ModelWalks,
    Trajectories,
    WalkCache,
    WalkPlan,
    restricted,
)

LEAST_TWICE = 32  # samples that are walked again for the ceiling, where there are so many


def references_of(
    images: ImageSet, like: DiffusionModel, names: Sequence[str] = DEFAULT_REFERENCES
) -> list[DiffusionModel]:
    """The closed-form denoisers of a training set, on a model's schedule and device."""
    made = [(name, closed_form(name, images.all(), like.denoiser.schedule)) for name in names]
    return [DiffusionModel(name, denoiser.to(like.device)) for name, denoiser in made]


def with_references(
    walks: ModelWalks,
    models: Sequence[DiffusionModel],
    walk: WalkPlan,
    known: WalkCache,
    images: ImageSet,
    names: Sequence[str],
) -> ModelWalks:
    """The walks with those of the closed-form denoisers beside each: on the same schedule and grid, from the same noise.

    They are made once for a training set, schedule and device (they hold the whole set), and walked once a grid (the optimal one is dear).
    """
    beside = []
    for owner, grid in zip(walks.owners, walks.grids, strict=True):
        like = models[owner]
        key = (images.fingerprint, like.denoiser.schedule.spec, str(like.device), tuple(names))
        made = known.references(key, partial(references_of, images, like, names))
        beside.append([known.of(reference, walk, grid, walks.place) for reference in made])
    return replace(walks, beside=beside)


def walked_twice(count: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Which samples are walked again for the ceiling: the first quarter of them, of every label, but `LEAST_TWICE` or more.

    Twice the steps for a quarter of the samples are a third of all evaluations. Samples of shared noise are exchangeable, and what is
    asked is how large the solver's error is beside the models' difference: a quarter tells that as well, and its interval says how well.
    """
    groups = groups_of(labels) or [np.arange(count)]
    least = max(2, -(-LEAST_TWICE // len(groups)))
    return np.sort(np.concatenate([group[: max(least, -(-len(group) // 4))] for group in groups]))


def ceiling_measured(
    walked: Sequence[Trajectories],
    again: Sequence[Trajectories],
    distances: Sequence[Distance],
    labels: np.ndarray | None = None,
    twice: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The same models with other steps: how alike two sets of images are that differ by the solver alone.

    Its null is that of the model against itself with other steps and other noise. Of runs with a way from noise to data the distance is
    taken along it too, at the levels of ``walked``: ``ceiling_along``.

    Args:
        walked, again: the models, and their second runs: the i-th of the i-th model. Models without one are left NaN.
        distances: the metrics.
        labels: what each sample was asked for, or None.
        twice: the samples of ``walked`` that the second runs are of; None: all. The others are left NaN.
    """
    count = walked[0].estimates.shape[1]
    places = np.arange(count) if twice is None else np.asarray(twice, dtype=int)
    walked, labels = restricted(walked, places.tolist()), None if labels is None else labels[places]
    both = [*walked[: len(again)], *again]
    pairs = [(k, k + len(again)) for k in range(len(again))]

    def among_all(values: np.ndarray) -> np.ndarray:
        """``(models, ..., sample, metric)`` with NaN for models, and samples, without a second run."""
        whole = np.full((len(walked), *values.shape[1:-2], count, values.shape[-1]), np.nan)
        whole[: len(again), ..., places, :] = values
        return whole

    last = [Trajectories(w.name, w.estimates[-1:]) for w in both]
    along = len(walked[0].estimates) > 1 and len({len(w.estimates) for w in both}) == 1
    if again[0].estimates.shape[1]:
        own, null = (x[:, 0] for x in pairwise_distances(last, pairs, distances, labels)[:2])
        before = [
            torch.stack([d.shifted(embedded(d, at_t), pairs, 0) for d in distances], -1).cpu().numpy()
            for at_t in zip(*(w.estimates[:-1] for w in both if along), strict=True)
        ]  # (model, sample, metric) each
    else:
        own = null = np.empty((len(again), 0, len(distances)))
        before = [own] * (len(walked[0].estimates) - 1)
    dims = ("model", "sample", "metric")
    values: dict[str, Any] = {"ceiling": (dims, among_all(own)), "ceiling_null": (dims, among_all(null))}
    if along:
        values["ceiling_along"] = (("model", "t", "sample", "metric"), among_all(np.stack([*before, own], 1)))
    return values


def add_ceiling(
    result: xr.Dataset, measured: Mapping[str, Any], distances: Sequence[Distance], blocks: Blocks = None
) -> None:
    """Add what `ceiling_measured` found, and its score over all models, and samples, that have a second run."""
    dims = ("model", "sample", "metric")
    for name in ("ceiling", "ceiling_null"):
        result[name] = (dims, measured[name][1].astype(np.float32))
    missing = np.isnan(measured["ceiling_null"][1])
    there, twice = ~missing.all((1, 2)), ~missing.all((0, 2))
    if blocks is not None:
        blocks = np.unique(blocks[twice], return_inverse=True)[1].astype(np.int32)
    distance, null = scored(distances, *(measured[name][1][there][:, twice] for name in ("ceiling", "ceiling_null")))
    score = pair_score(distance.mean(0), null.mean(0), axis=0, blocks=blocks)
    add_interval(result, "ceiling_score", ("metric",), score)


def references_measured(
    walks: ModelWalks, distances: Sequence[Distance], labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Each model's distance to each closed-form denoiser, started from the same noise, with its null, started from other noise.

    Beside them ``residual_distance`` and ``residual_null``: do two models still agree in what a reference does not explain? The mean
    squared error of A - R against B - R, R from the same noise.

    Args:
        walks: of the models, those of the references beside them.
        distances: the metrics.
        labels: what each sample was asked for, or None.
    """
    models = walks.own
    beside = walks.beside[: len(models)]
    references = list(
        {id(each): each for row in beside for each in row}.values()
    )  # models of one schedule share theirs
    place = {id(each): len(models) + k for k, each in enumerate(references)}
    pairs = [(k, place[id(each)]) for k, row in enumerate(beside) for each in row]
    shape = (len(models), len(beside[0]))
    distance, null = (
        x.reshape(*shape, *x.shape[1:])
        for x in pairwise_distances([*models, *references], pairs, distances, labels)[:2]
    )
    for k, row in enumerate(beside):
        for r, reference in enumerate(row):
            if (reference.estimates == reference.estimates[:, :1]).all():
                null[k, r] = _constant_null(distance[k, r], labels)
    dims, of_residuals = ("model", "reference", "t", "sample", "metric"), ("reference", "pair", "t", "sample")
    residual = _residuals(walks, labels)
    return {
        "reference_distance": (dims, distance),
        "reference_null": (dims, null),
        "residual_distance": (of_residuals, residual[0]),
        "residual_null": (of_residuals, residual[1]),
    }


def add_references(
    result: xr.Dataset, measured: Mapping[str, Any], distances: Sequence[Distance], blocks: Blocks = None
) -> None:
    """Add what `references_measured` found: ``reference_score`` is each model's own; ``reference_mean_score`` is that of the distance
    averaged over models; ``residual_score`` is of each pair.

    Args:
        result: has the coordinate ``reference``, their names; it gets the variables.
        measured: of `references_measured`.
        distances: the metrics.
        blocks: in which block each sample met its null.
    """
    dims = ("model", "reference", "t", "sample", "metric")
    for name in ("reference_distance", "reference_null"):
        result[name] = (dims, measured[name][1].astype(np.float32))
    distance, null = scored(distances, *(measured[name][1] for name in ("reference_distance", "reference_null")))
    own = pair_score(distance, null, axis=3, blocks=blocks)
    add_interval(result, "reference_score", ("model", "reference", "t", "metric"), own)
    mean = pair_score(distance.mean(0), null.mean(0), axis=2, blocks=blocks)
    add_interval(result, "reference_mean_score", ("reference", "t", "metric"), mean)
    both = (measured[name][1] for name in ("residual_distance", "residual_null"))
    over_references = stacked(pair_score(d, u, axis=2, blocks=blocks) for d, u in zip(*both, strict=True))
    residual = Interval(*(part.swapaxes(0, 1) for part in over_references))
    add_interval(result, "residual_score", ("pair", "reference", "t"), residual)


def _constant_null(distance: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The null of a reference that answers every noise alike (the data mean), from the distances ``(t, sample, metric)`` of a model.

    d(A_j, R_i) = d(A_j, R_j) then, so the null is known over all i != j, and the score is 0 in every jackknife replicate. The null of
    distances that see only some j would scatter around it.
    """
    null = np.empty_like(distance)
    for label in [None] if labels is None else np.unique(labels):
        group = slice(None) if label is None else np.flatnonzero(labels == label)
        own = distance[:, group]
        with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite
            others = (own.sum(1, keepdims=True) - own) / (own.shape[1] - 1)
        null[:, group] = (own + others) / 2
    return null


def _residuals(walks: ModelWalks, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Distance and null of what each reference leaves over, ``(reference, pair, t, sample)``."""
    rows = []
    for references in zip(*walks.beside, strict=True):
        residuals = [
            Trajectories(w.name, w.estimates - r.estimates) for w, r in zip(walks.every, references, strict=True)
        ]
        rows.append(pairwise_distances(residuals, walks.sides, [MeanSquaredError()], labels)[:2])
    distance, null = (np.stack([part[..., 0] for part in parts]) for parts in zip(*rows, strict=True))
    return distance, null


class Nearest(NamedTuple):
    """Of each final image of a model, the mean squared error to its nearest training image, and that image's place, both ``(N,)``."""

    distance: np.ndarray
    place: np.ndarray


def nearest_measured(walked: Sequence[Trajectories], pool: Tensor) -> list[Nearest]:
    """The nearest training image of each final image of each model: far away means that it was not copied."""
    found = (nearest(w.estimates[-1], pool) for w in walked)
    return [Nearest(distance.cpu().numpy(), place.cpu().numpy()) for distance, place in found]
