"""What a comparison is read against: the ceiling, the closed-form references, the nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import DEFAULT_REFERENCES, closed_form
from consistency_lab.intervals import Interval, add_interval, stacked
from consistency_lab.metrics.distances import Distance, MeanSquaredError, nearest
from consistency_lab.similarity.pairwise import pairwise_distances, scored
from consistency_lab.similarity.statistics import pair_score
from consistency_lab.similarity.trajectories import (
    ModelWalks,
    Trajectories,
    WalkCache,
    WalkPlan,
    shown_images,
    to_bytes,
)


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
        beside.append([known.of(reference, walk, grid) for reference in made])
    return replace(walks, beside=beside)


def add_ceiling(
    result: xr.Dataset,
    walked: Sequence[Trajectories],
    again: Sequence[Trajectories],
    distances: Sequence[Distance],
    labels: np.ndarray | None = None,
) -> None:
    """The same models with other steps: how alike two sets of images are that differ by the solver alone.

    Its null is that of the model against itself with other steps and other noise.
    """
    ends = [Trajectories(w.name, w.estimates[-1:]) for w in [*walked, *again]]
    pairs = [(k, k + len(walked)) for k in range(len(walked))]
    distance, null = (values[:, 0] for values in pairwise_distances(ends, pairs, distances, labels)[:2])
    for name, values in (("ceiling", distance), ("ceiling_null", null)):
        result[name] = (("model", "sample", "metric"), values.astype(np.float32))
    distance, null = scored(distances, distance, null)
    add_interval(result, "ceiling_score", ("metric",), pair_score(distance.mean(0), null.mean(0), axis=0))


def add_references(
    result: xr.Dataset,
    walks: ModelWalks,
    distances: Sequence[Distance],
    shown: int,
    labels: np.ndarray | None = None,
) -> None:
    """Each model's distance to each closed-form denoiser, started from the same noise, with its null, started from other noise.

    ``reference_score`` is each model's own; ``reference_mean_score`` is that of the distance averaged over models.

    Args:
        result: gets the variables.
        walks: of the models, those of the references beside them.
        distances: the metrics.
        shown: samples whose pictures are kept; of references on the first model's schedule.
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
    result.coords["reference"] = [reference.name for reference in beside[0]]
    dims = ("model", "reference", "t", "sample", "metric")
    for name, values in (("reference_distance", distance), ("reference_null", null)):
        result[name] = (dims, values.astype(np.float32))
    distance, null = scored(distances, distance, null)
    add_interval(result, "reference_score", ("model", "reference", "t", "metric"), pair_score(distance, null, axis=3))
    mean = pair_score(distance.mean(0), null.mean(0), axis=2)
    add_interval(result, "reference_mean_score", ("reference", "t", "metric"), mean)
    _add_residuals(result, walks, labels)
    pictures = np.stack([shown_images(reference, shown) for reference in beside[0]])
    result["reference_images"] = (("reference", "shown", "t", "channel", "row", "column"), pictures)


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


def _add_residuals(result: xr.Dataset, walks: ModelWalks, labels: np.ndarray | None) -> None:
    """Do two models still agree in what a reference does not explain? The score (MSE) of A - R against B - R, R from the same noise."""
    rows = []
    for references in zip(*walks.beside, strict=True):
        residuals = [
            Trajectories(w.name, w.estimates - r.estimates) for w, r in zip(walks.every, references, strict=True)
        ]
        rows.append(pair_score(*pairwise_distances(residuals, walks.sides, [MeanSquaredError()], labels)[:2], axis=2))
    over_references = stacked([part[..., 0] for part in row] for row in rows)  # (reference, pair, t)
    residual = Interval(*(part.swapaxes(0, 1) for part in over_references))
    add_interval(result, "residual_score", ("pair", "reference", "t"), residual)


def add_nearest(result: xr.Dataset, walked: Sequence[Trajectories], images: ImageSet, shown: int) -> None:
    """The nearest training image of each final image: far away means that it was not copied."""
    pool = images.all()
    found = [nearest(w.estimates[-1], pool) for w in walked]
    result["nearest_distance"] = (("model", "sample"), np.stack([d.numpy() for d, _ in found]).astype(np.float32))
    pictures = np.stack([to_bytes(pool[index[:shown].to(pool.device)].cpu()) for _, index in found])
    result["nearest_images"] = (("model", "shown", "channel", "row", "column"), pictures)
