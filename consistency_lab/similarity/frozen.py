"""All models evaluated on the same states: do their functions agree, apart from where their own trajectories take them?

Along its own trajectory a model meets states that its earlier answers made. Here every model is shown x0 + s eps, the same for all,
rescaled by each schedule's alpha; what differs is the function alone. What is left of the distance along own trajectories is drift.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_shape
from consistency_lab.devices import measuring, plain_defaults, sent
from consistency_lab.diffusion.log_snr import kept_points
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_diffusion, chunks, described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import per_sample
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval, add_interval, mean_interval
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.similarity.checks import check_arguments, counted
from consistency_lab.similarity.labels import agreed_labels, labels_of
from consistency_lab.similarity.pairwise import add_pairs, coordinates, kinds_of_interval, pairs_measured
from consistency_lab.similarity.quantities import is_scored
from consistency_lab.similarity.robust import add_robust
from consistency_lab.similarity.trajectories import Trajectories, meetings, place_of
from consistency_lab.store.results import provenance, with_provenance
from consistency_lab.store.shapes import whole

ROUNDING = 1e-12  # a mean distance below this is that of equal float32 images
NOTE = "x0 estimates of models that are shown the same noisy images; where a null vanishes (high noise) the score says little"


@plain_defaults()
def compare_frozen(
    models: Sequence[DiffusionModel],
    images: ImageSet,
    noise: SharedNoise | None = None,
    *,
    count: int = 256,
    metrics: Sequence[str | Distance] = ("mse", "cosine"),
    levels: int = 14,
    along: xr.Dataset | None = None,
) -> xr.Dataset:
    """How alike are the x0 estimates of models given the same noisy images?

    The null is the distance of one model's answer to another's answer about another noisy image, so that a score of 0 means no more
    alike than answers about different states. At high noise every good denoiser answers with the data mean, for every state: the
    null vanishes and the score says little there; the distances do.

    Args:
        models: two or more of one image shape. Two of different schedules are compared at equal log-SNR, on the alignment of their pair.
        images: whose first ``count`` are made noisy.
        noise: of the states, from its ``"probe"`` stream; ``SharedNoise(0)`` by default.
        count: states at each level.
        metrics: distances, by name or as objects.
        levels: noise levels, from high to low; those of ``along`` where that is given.
        along: what `compare` found of the same models along their own trajectories. The models are then asked at its noise levels, for its
            labels, and the result holds the drift (see `drift`) and ``along_distance (pair, t, metric)`` beside it.

    Returns:
        ``distance``, ``null`` and scores as in a comparison, along ``t`` of the pairs' alignments; kind ``"frozen comparison"``.

    Raises:
        UserError: fewer than two models or states, too few images, shapes or schedules that do not meet, a comparison of other models.
    """
    check_arguments(models, noise, metrics, images)
    count, levels = counted(count=count, levels=levels)
    noise = noise or SharedNoise(0)
    if len(models) < 2:
        raise UserError(f"a frozen comparison needs two or more models, not {len(models)}.")
    for model in models:
        check_diffusion(model)
        check_shape(model.name, model.noise_shape, images)
    if not 2 <= count <= len(images):
        raise UserError(
            f"{count} states were asked for and {images.name!r} has {len(images)} images; choose between 2 and that."
        )
    if levels < 1:
        raise UserError("a frozen comparison needs at least one noise level.")
    distances = [metric if isinstance(metric, Distance) else METRICS.build(metric) for metric in metrics]
    x0, eps = images.batch(range(count), "cpu"), noise.draw(range(count), images.shape, stream="probe")
    steps, kept, labels = levels, torch.arange(levels), None
    if along is not None:
        _check_same(along, models, distances)
        steps, labels = provenance(along)["sampler"]["steps"], provenance(along).get("labels")
        kept = kept_points(steps, along.sizes["t"])[:-1]  # the last is the image: no state to be asked about
    asked, place = agreed_labels(models, count, labels), place_of(models)

    def answers(model: GenerativeModel, grid: Tensor) -> Trajectories:
        assert isinstance(model, DiffusionModel)
        return Trajectories(model.name, _answers(model, x0, eps, grid[kept], asked, place))

    walks = meetings(models, steps, kept, answers)
    result = xr.Dataset(coords=coordinates([m.name for m in models], distances))
    t, log_snr = walks.axis
    result.coords["t"], result.coords["log_snr"] = t, ("t", log_snr)
    measured = pairs_measured(walks, distances, None if asked is None else labels_of(range(count), asked))
    add_pairs(result, len(models), walks.log_snr.numpy(), measured, distances)
    add_robust(result, distances)
    if along is not None:
        result = result.merge(drift(along, result))
    result.attrs.update(kinds_of_interval(len(models)), note=NOTE)
    return with_provenance(
        result,
        "frozen comparison",
        choices=("metric", "t"),
        models=[described(model) for model in models],
        samples=count,
        noise_seed=noise.seed,
        images={"name": images.name, "fingerprint": images.fingerprint, "used": count},
        device=str(models[0].device),
    )


def _check_same(along: xr.Dataset, models: Sequence[DiffusionModel], distances: Sequence[Distance]) -> None:
    """Raise `UserError` unless that is the whole comparison of these diffusion models with these metrics."""
    along = whole(along)
    if along.attrs["kind"] != "comparison":
        raise UserError(
            f"along is what compare() found of the same models, not a result of kind {along.attrs['kind']!r}."
        )
    names, theirs = [model.name for model in models], [str(name) for name in along["model"].values]
    if names != theirs:
        raise UserError(
            f"the comparison is of {', '.join(theirs)} and the models are {', '.join(names)}; give the same in one order."
        )
    for distance in distances:
        if distance.name not in along["metric"].values:
            raise UserError(
                f"the comparison did not measure {distance.name!r}; compare with that metric, or leave it out here."
            )


@torch.no_grad()
def _answers(
    model: DiffusionModel,
    x0: Tensor,
    eps: Tensor,
    times: Tensor,
    asked: tuple[int, ...] | None,
    place: torch.device,
) -> Tensor:
    """The model's x0 estimates at ``x0 + s eps``: ``(T, N, C, H, W)`` on a device."""
    schedule, dtype = model.denoiser.schedule, next((p.dtype for p in model.denoiser.parameters()), torch.float64)
    rows = []
    with measuring():
        for t in times.tolist():
            state = x0.double() + per_sample(schedule.noise_to_signal(t), eps.double()) * eps.double()
            state = sent((per_sample(schedule.alpha(t), state) * state).to(dtype), model.device)
            parts = []
            for chunk in chunks(range(len(x0))):
                part = state[chunk[0] : chunk[-1] + 1]
                parts.append(model.denoiser(part, t, model.labels(chunk, asked)).x0.float().to(place))
            rows.append(torch.cat(parts))
    return torch.stack(rows)


def drift(along: xr.Dataset, frozen: xr.Dataset) -> xr.Dataset:
    """The share of the distance along own trajectories that the functions alone do not make: 1 - frozen / along.

    0: where the models go makes no difference. 1: asked about the same states they agree. Below 0: they differ more about the same states
    than along trajectories of their own. Both distances are means, over noise and over states that were drawn apart, so the interval (95 %,
    these models) adds their relative variances and is symmetric in log(frozen / along).

    Args:
        along, frozen: a comparison and a frozen comparison of the same pairs at the same noise levels, as `compare_frozen` makes with
            ``along``. Levels of ``along`` behind the last of ``frozen`` (the images) are left out.

    Returns:
        ``drift`` and ``along_distance`` with their intervals, each ``(pair, t, metric)``. The drift is NaN for no distance, and where
        the models do not differ along their trajectories (below 1e-12, which float32 cannot tell from 0).

    Raises:
        UserError: other pairs, metrics or noise levels.
    """
    metrics = frozen["metric"].values
    if not set(metrics) <= set(along["metric"].values) or list(along["pair"].values) != list(frozen["pair"].values):
        raise UserError(
            "drift is of one set of pairs and metrics; give compare_frozen the comparison of the same models (along=...)."
        )
    order = ("pair", "t", "metric", "sample")
    own = along.sel(metric=metrics).isel(t=slice(frozen.sizes["t"]))
    levels = [x["pair_log_snr"].transpose("pair", "t").values for x in (own, frozen)]
    if levels[0].shape != levels[1].shape or not np.allclose(levels[0], levels[1]):
        raise UserError(
            "the two comparisons are at different noise levels; give compare_frozen the comparison itself (along=...)."
        )
    walked, still = (x["distance"].transpose(*order).values.astype(np.float64) for x in (own, frozen))
    with np.errstate(all="ignore"):  # models without a distance have no share of it: NaN
        ratio = still.mean(-1) / walked.mean(-1)
        variances = [x.var(-1, ddof=1) / x.shape[-1] / x.mean(-1) ** 2 for x in (walked, still)]
        total = variances[0] + variances[1]
        freedom = total**2 / (variances[0] ** 2 / (walked.shape[-1] - 1) + variances[1] ** 2 / (still.shape[-1] - 1))
        half = stats.t.ppf(0.975, freedom) * np.sqrt(total)
        defined = (walked.mean(-1) > ROUNDING) & np.array([is_scored(frozen, str(metric)) for metric in metrics])
        values = [np.where(defined, 1 - ratio * np.exp(sign * half), np.nan) for sign in (0, 1, -1)]
    result, dims = xr.Dataset(coords={name: frozen[name] for name in ("pair", "t", "metric")}), ("pair", "t", "metric")
    add_interval(result, "drift", dims, Interval(*values))
    add_interval(result, "along_distance", dims, mean_interval(walked))
    return result
