"""Which noise level decides the image? What estimates know of it, which bands are fixed when, and whose image it is after a handoff.

2404.07946 (section 4.2) argues that structure is made at high noise, where denoising in eps is easy. Watching the estimates shows what is
*known* of the final image at a level; handing the state to another model, or exchanging its noise, shows what is *decided* there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise, permutations

import numpy as np
import torch
import xarray as xr

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.log_snr import PairAlignment, align_pair, kept_points, shared_axis
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, described
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, Interval, add_interval, mean_interval, stacked, without_bounds
from consistency_lab.metrics.bands import BandError, ComponentError, principal_components
from consistency_lab.metrics.base import SquaredDistance
from consistency_lab.metrics.copy_detection import proportion_bounds
from consistency_lab.metrics.pixels import MeanSquaredError
from consistency_lab.probes.explained_variance import Statistic, correlation, crossing, embedded, fixed_share
from consistency_lab.probes.handoff import Course, course, handed_over, nearness, noise_swapped
from consistency_lab.store.results import with_provenance

BANDS = (0.0, 0.125, 0.25, 0.5, 1.0)  # edges of frequency bands, as shares of the corner frequency
COMPONENTS = (4, 16, 64)  # where groups of principal components end
ALIKE = 1e-4  # root mean square distance below which two images cannot be told apart, so that nearness means nothing


@plain_defaults()
def probe_structure(
    models: DiffusionModel | Sequence[DiffusionModel],
    images: ImageSet,
    noise: SharedNoise | None = None,
    *,
    count: int = 64,
    sampler: Sampler | str | None = None,
    levels: int = 14,
) -> xr.Dataset:
    """Where along the noise levels the final image is known and decided, for each model and between each ordered pair of them.

    Args:
        models: one or more of one image shape. Their schedules may differ: each is watched on its own grid, and two hand over at equal
            log-SNR, on the alignment of their pair.
        images: the training set, whose principal components are told apart.
        noise: ``SharedNoise(0)`` by default.
        count: samples, 3 or more; noise is swapped between image i and another, which asks for the same label where there are labels.
        sampler: deterministic and without a memory of earlier steps (``"ddim"`` or ``"heun"``); ``Sampler()`` by default.
        levels: noise levels that are kept, the final image included. A pair costs about ``levels / 2`` samplings.

    Returns:
        A structure result along ``t``, the models' own time (the mean, where their schedules differ; ``model_log_snr`` and
        ``handoff_log_snr`` say which levels those are). Per model ``fixed (model, part, t)`` and ``correlation`` of the x0
        estimate with the final image, for all of it (``mse``), by band of frequencies and by group of principal components (``part_of``,
        ``part_first`` and ``part_last`` along ``part`` say which); ``fixed_t`` where half is fixed; ``distance (model, t,
        sample)`` and its null; ``swap_nearer`` and ``swap_relative (model, t)``: whose image it is when the noise is exchanged at t, and
        ``swap_switch_t`` where the two are even. With two models or more the same of ``handoff (handoff, t)``. All with 95 % intervals
        over samples.

    Raises:
        UserError: too few samples, names that repeat, other shapes, a stochastic or multi-step sampler, schedules without a common level.
    """
    models = list(models) if isinstance(models, Iterable) and not isinstance(models, str) else [models]
    check_noise(noise)
    noise, sampler = noise or SharedNoise(0), Sampler.of(sampler)
    count, levels = whole("count", count), whole("levels", levels)
    _check(models, images, count, sampler, levels)
    kept = kept_points(sampler.steps, levels)
    away = count if not models[0].classes else -(-count // models[0].classes) * models[0].classes
    numbers = [range(count), range(away, away + count)]
    starts = [noise.initial(n, images.shape) for n in numbers]
    alignments = [align_pair(m.denoiser.schedule, m.denoiser.schedule, sampler.steps) for m in models]
    walked = [
        [course(m, start, n, sampler, alignment.first, kept) for start, n in zip(starts, numbers, strict=True)]
        for m, alignment in zip(models, alignments, strict=True)
    ]
    result = xr.Dataset(coords={"model": [m.name for m in models]}, attrs={"interval": "95 % over samples"})
    _add_times(result, "model", alignments, kept)
    _add_explained(
        result, [first for first, _ in walked], _parts(images), [alignment.t[kept].numpy() for alignment in alignments]
    )
    swaps = [
        _whose(noise_swapped(a, b, m, sampler, alignment.first, kept), a, b)
        for m, (a, b), alignment in zip(models, walked, alignments, strict=True)
    ]
    _add_whose(result, "swap", "model", swaps, [alignment.t[kept].numpy() for alignment in alignments])
    pairs = list(permutations(range(len(models)), 2))
    if pairs:
        result.coords["handoff"] = [f"{models[a].name} > {models[b].name}" for a, b in pairs]
        met = [align_pair(models[a].denoiser.schedule, models[b].denoiser.schedule, sampler.steps) for a, b in pairs]

        @cache
        def on(k: int, grid: tuple[float, ...]) -> Course:
            """The course of a model on a grid: its own is walked already."""
            if grid == tuple(alignments[k].first.tolist()):
                return walked[k][0]
            return course(models[k], starts[0], numbers[0], sampler, torch.tensor(grid, dtype=torch.float64), kept)

        handoffs = []
        for (a, b), alignment in zip(pairs, met, strict=True):
            first, second = on(a, tuple(alignment.first.tolist())), on(b, tuple(alignment.second.tolist()))
            handoffs.append(_whose(handed_over(first, models[b], sampler, alignment.second, kept), first, second))
        _add_times(result, "handoff", met, kept)
        _add_whose(result, "handoff", "handoff", handoffs, [alignment.t[kept].numpy() for alignment in met])
    return with_provenance(
        result,
        "structure",
        choices=("model", "handoff", "part", "t"),
        models=[described(m) for m in models],
        samples=count,
        partner_offset=away,
        noise_seed=noise.seed,
        sampler=sampler.facts,
        data={"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        device=str(models[0].device),
    )


def _add_times(result: xr.Dataset, dim: str, alignments: Sequence[PairAlignment], kept: torch.Tensor) -> None:
    """The levels of every alignment ``({dim}_log_snr: (dim, t))``; ``t`` and ``log_snr`` are those of the models, or their mean."""
    t, log_snr = (
        torch.stack([reading[kept] for reading in each])
        for each in zip(*((c.t, c.log_snr) for c in alignments), strict=True)
    )
    result.coords[f"{dim}_log_snr"] = ((dim, "t"), log_snr.numpy())
    if "log_snr" not in result.coords:
        result.coords["t"], result.coords["log_snr"] = shared_axis(t).numpy(), ("t", shared_axis(log_snr).numpy())


def _check(models: Sequence[DiffusionModel], images: ImageSet, count: int, sampler: Sampler, levels: int) -> None:
    for model in models:
        check_diffusion(model)
    check_set(images)
    if not models or len({m.name for m in models}) < len(models):
        raise UserError("a structure probe needs one model or more, each with a name of its own.")
    for model in models:
        check_shape(model.name, model.noise_shape, images)
        if model.classes != models[0].classes:
            raise UserError(
                f"{model.name!r} and {models[0].name!r} have different labels; one cannot take over from the other."
            )
    if count < 3 or levels < 3:
        raise UserError(f"a structure probe needs at least 3 samples and 3 levels, not {count} and {levels}.")
    if sampler.stochastic or sampler.memory:
        raise UserError(
            f"the sampler {sampler.method!r} draws noise or remembers its last step, which a handoff would lose; "
            "use ddim or heun."
        )


def _parts(images: ImageSet) -> list[SquaredDistance]:
    """The whole image, its frequency bands, and groups of the data's principal components, as far as the image is large enough for them."""
    size = int(np.prod(images.shape))
    parts: list[SquaredDistance] = [MeanSquaredError()]
    probe = images.batch(torch.arange(1))
    for low, high in pairwise(BANDS):
        band = BandError(low=low, high=high)
        try:
            band.embed(probe)
        except UserError:  # no frequency of so small an image lies in the band
            continue
        parts.append(band)
    edges = [end for end in COMPONENTS if end < size]
    return parts + (principal_components(images.all(), edges, images.name) if edges and size <= 4096 else [])


def _add_explained(
    result: xr.Dataset, courses: Sequence[Course], parts: Sequence[SquaredDistance], times: Sequence[Array]
) -> None:
    result.coords["part"] = [part.name for part in parts]
    for name, facts in zip(("part_of", "part_first", "part_last"), zip(*map(_said, parts), strict=True), strict=True):
        result.coords[name] = ("part", list(facts))
    result.attrs.update({f"note_{part.name}": part.note for part in parts if part.note})
    dims = ("model", "part", "t")
    found: dict[str, list[list[Interval]]] = {"fixed": [], "correlation": [], "fixed_t": []}
    for walk, own in zip(courses, times, strict=True):
        rows = [(e, fixed_share(e, e[-1])) for e in embedded(parts, walk.x0)]
        found["fixed"].append([_up_to_one(share.interval) for _, share in rows])
        found["correlation"].append([_up_to_one(correlation(e, e[-1]).interval) for e, _ in rows])
        found["fixed_t"].append([crossing(own, share) for _, share in rows])
    for name, intervals in found.items():
        values = stacked(stacked(row) for row in intervals)
        add_interval(result, name, dims[: values.estimate.ndim], values)
    whole = parts[0]
    final = [whole.embed(walk.x0[-1]) for walk in courses]
    apart = [
        torch.stack([whole.between(whole.embed(x), f) for x in walk.x0]) for walk, f in zip(courses, final, strict=True)
    ]
    result["distance"] = (("model", "t", "sample"), torch.stack(apart).float().numpy())
    result["distance_null"] = (("model", "sample"), torch.stack([whole.null(f, f) for f in final]).float().numpy())


def _said(part: SquaredDistance) -> tuple[str, float, float]:
    """What a part is one of ("image", "band", "components"), and its first and last frequency or component; NaN for the image."""
    if isinstance(part, BandError):
        return "band", part.low, part.high
    if isinstance(part, ComponentError):
        return "components", float(part.first), float(part.last)
    return "image", np.nan, np.nan


def _up_to_one(interval: Interval) -> Interval:
    """No share and no correlation exceeds 1: a bound beyond it is drawn back."""
    return interval._replace(high=np.minimum(interval.high, 1.0))


def _whose(mixed: torch.Tensor, own: Course, other: Course) -> tuple[Array, Array, np.ndarray]:
    """Distances of the mixed images to both sides' images ``(T, N)``, and which samples can tell the sides apart ``(N,)``."""
    a, b = own.y[-1], other.y[-1]
    to_own, to_other = nearness(mixed, a, b)
    return to_own.numpy(), to_other.numpy(), (nearness(a[None], b, b)[0][0] > ALIKE).numpy()


def _add_whose(
    result: xr.Dataset, prefix: str, dim: str, found: Sequence[tuple[Array, Array, np.ndarray]], times: Sequence[Array]
) -> None:
    """Add the share of samples nearer to the first side's image, the mean of ``d1 / (d1 + d2)``, and the time at which that is one half.

    Root mean square distances: an image that lies between the two, a share w of the way from the first, has the relative distance w.
    """
    nearer, relative, switch = [], [], []
    for (first, second, apart), own in zip(found, times, strict=True):
        n = int(apart.sum())
        if n < 3:
            nearer.append(without_bounds(np.full(len(own), np.nan)))
            relative.append(nearer[-1])
            switch.append(without_bounds(np.nan))
            continue
        a, b = first[:, apart], second[:, apart]
        counts = (a < b).sum(1)
        bounds = np.array([proportion_bounds(int(c), n) for c in counts])
        nearer.append(Interval(counts / n, bounds[:, 0], bounds[:, 1]))
        share = a / (a + b)
        relative.append(mean_interval(share))
        # The first side wins as t falls: what reaches one half is 1 - d1 / (d1 + d2).
        won = 1 - share
        left = (won.sum(1, keepdims=True) - won).T / (n - 1)
        switch.append(crossing(own, Statistic(won.mean(1), left)))
    for name, rows, dims in (
        ("nearer", nearer, (dim, "t")),
        ("relative", relative, (dim, "t")),
        ("switch_t", switch, (dim,)),
    ):
        add_interval(result, f"{prefix}_{name}", dims, stacked(rows))
    for name, i in (("to_first", 0), ("to_second", 1)):
        result[f"{prefix}_{name}"] = ((dim, "t", "sample"), np.stack([row[i] for row in found]).astype(np.float32))
    result[f"{prefix}_apart"] = ((dim,), np.array([row[2].mean() for row in found]))
