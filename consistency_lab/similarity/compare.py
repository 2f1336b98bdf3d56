"""Compare K models under shared noise: along the way, at the end, and against controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.model import DiffusionModel, chunks
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import REFERENCES, closed_form
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import METRICS, Distance, check_samples, nearest
from consistency_lab.similarity.statistics import family_score, pair_score, pairs_of, score
from consistency_lab.store.results import with_provenance

FAMILY = "95 %, delete-one-model jackknife, t({dof}): over models like these {count} and over noise"
PAIR = "95 %, delete-one-sample jackknife over noise: this pair, not this family"


class Trajectories(NamedTuple):
    """The x0 estimates of one model at the recorded times: ``(T, N, C, H, W)`` float32 on the CPU; the last is the image."""

    name: str
    estimates: Tensor


def compare(
    models: Sequence[DiffusionModel],
    noise: SharedNoise | None = None,
    *,
    count: int = 256,
    metrics: Sequence[str] = ("mse", "psnr", "cosine"),
    sampler: Sampler | None = None,
    images: ImageSet | None = None,
    levels: int = 14,
    shown: int = 12,
) -> xr.Dataset:
    """How alike are the images that models make from the same noise?

    Every model walks the same noise levels from the same noise. At ``levels`` of them, and at the end, its x0 estimates are compared
    with those of every other model, and with what other noise would give (the null). With a training set, the closed-form references
    (Gaussian, optimal, data mean) start from the same noise, and the nearest training image of each sample is found.

    Args:
        models: two or more, of one image shape. Their schedules may differ: they meet at equal log-SNR.
        noise: the shared noise, ``SharedNoise(0)`` by default.
        count: samples, the images 0 ... count - 1 of the noise; at least 2.
        metrics: names of distances, see `METRICS`.
        sampler: how everybody samples; ``Sampler()`` (50 steps of DDIM) by default.
        images: the training set of the models, for references and nearest images.
        levels: noise levels along the trajectory that are kept, the final image included.
        shown: samples whose images the result carries.

    Returns:
        A comparison: ``distance`` and ``null`` ``(pair, t, sample, metric)``, scores with intervals, references, ceiling, images.

    Raises:
        UserError: fewer than two models or samples, image shapes that differ, names that repeat, schedules that share no
            noise level, or a model whose output is not finite.
    """
    noise, sampler = noise or SharedNoise(0), sampler or Sampler()
    distances = [METRICS.build(metric) for metric in metrics]
    _check(models, count, images)
    indices = range(count)
    times, kept = common_times([model.denoiser for model in models], sampler.steps, levels)
    walked = [_walk(m, noise, indices, sampler, t, kept) for m, t in zip(models, times, strict=True)]
    finer = sampler_with(sampler, 2 * sampler.steps)
    doubled = common_times([model.denoiser for model in models], finer.steps, 2)
    again = [_walk(m, noise, indices, finer, t, doubled[1]) for m, t in zip(models, doubled[0], strict=True)]
    clock = times[0][kept]
    result = xr.Dataset(
        coords=_coordinates([m.name for m in models], clock, models[0].denoiser, [d.name for d in distances])
    )
    _add_pairs(result, walked, distances)
    _add_ceiling(result, walked, again, distances)
    result["images"] = (
        ("model", "shown", "t", "channel", "row", "column"),
        np.stack([_shown(w.estimates, shown) for w in walked]),
    )
    if images is not None:
        _add_references(result, walked, images, noise, indices, sampler, (times[0], kept), models[0], distances, shown)
        _add_nearest(result, walked, images, shown)
    for distance in distances:
        result.attrs[f"units_{distance.name}"] = distance.unit
    return with_provenance(
        result,
        "comparison",
        models=[m.described for m in models],
        sampler=asdict(sampler),
        nfe=sampler.evaluations(),
        ceiling_steps=finer.steps,
        samples=count,
        noise_seed=noise.seed,
        chunk=len(next(iter(chunks(indices)))),
        data=None
        if images is None
        else {"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        device=str(models[0].device),
    )


def sampler_with(sampler: Sampler, steps: int) -> Sampler:
    return Sampler(**{**asdict(sampler), "steps": steps})


def _check(models: Sequence[DiffusionModel], count: int, images: ImageSet | None) -> None:
    if len(models) < 2:
        raise UserError(f"a comparison needs at least two models, not {len(models)}.")
    if count < 2:
        check_samples(torch.empty(count, 1))
    for model in models:
        if model.noise_shape != models[0].noise_shape:
            raise UserError(
                f"{model.name!r} makes images of {model.noise_shape} and {models[0].name!r} of {models[0].noise_shape}; "
                "models whose shapes differ cannot be given the same noise."
            )
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UserError(
            f"two models are called {next(n for n in names if names.count(n) > 1)!r}; give each its own name."
        )
    if images is not None and images.shape != models[0].noise_shape:
        raise UserError(
            f"the models make images of {models[0].noise_shape}, but {images.name!r} has images of {images.shape}."
        )


def common_times(denoisers: Sequence[Denoiser], steps: int, levels: int) -> tuple[list[Tensor], Tensor]:
    """Grids of ``steps`` solver steps at which all denoisers are at the same log-SNR.

    Equal schedules use their own grid. Others take equal steps of the first one's time over the log-SNR range that all share.

    Returns:
        one grid ``(steps + 1,)`` per denoiser, decreasing to 0, and the indices ``(levels,)`` of the grid points that are kept.

    Raises:
        UserError: the ranges of log-SNR do not overlap.
    """
    first = denoisers[0].schedule
    kept = torch.linspace(0, steps, min(levels, steps + 1)).round().long()
    if all(denoiser.schedule == first for denoiser in denoisers):
        return [first.grid(steps)] * len(denoisers), kept
    ranges = [denoiser.schedule.log_snr_range for denoiser in denoisers]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if not low < high:
        raise UserError(
            f"the schedules share no noise level: their log-SNR ranges are {', '.join(f'{a:.3g} to {b:.3g}' for a, b in ranges)}."
        )
    ends = first.time_from_log_snr(torch.tensor([low, high], dtype=torch.float64))
    clock = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)
    levels_shared = first.log_snr(clock).clamp(low, high)
    zero = torch.zeros(1, dtype=torch.float64)
    return [torch.cat([d.schedule.time_from_log_snr(levels_shared), zero]) for d in denoisers], kept


def _walk(
    model: DiffusionModel, noise: SharedNoise, indices: Sequence[int], sampler: Sampler, times: Tensor, kept: Tensor
) -> Trajectories:
    """Sample, keeping the x0 estimates at the kept grid points."""
    wanted = set(kept.tolist())
    parts = []
    for chunk in chunks(indices):
        steps = enumerate(model.path(noise, chunk, sampler, times))
        parts.append(torch.stack([step.x0.float().cpu() for number, step in steps if number in wanted]))
    estimates = torch.cat(parts, dim=1)
    bad = (~estimates.flatten(2).isfinite().all(2)).nonzero()
    if len(bad):
        t, sample = float(times[kept[bad[0, 0]]]), int(bad[0, 1])
        raise UserError(
            f"the model {model.name!r} gives values that are not finite at t = {t:.3g} for sample {sample}; leave it out or train it again."
        )
    return Trajectories(model.name, estimates)


def _coordinates(names: list[str], clock: Tensor, denoiser: Denoiser, metrics: list[str]) -> dict[str, Any]:
    pairs = pairs_of(len(names))
    log_snr = [float(denoiser.schedule.log_snr(t)) if t > 0 else np.inf for t in clock.tolist()]
    return {
        "model": names,
        "pair": [f"{names[a]} | {names[b]}" for a, b in pairs],
        "first": ("pair", np.array([a for a, _ in pairs], dtype=np.int32)),
        "second": ("pair", np.array([b for _, b in pairs], dtype=np.int32)),
        "t": clock.numpy(),
        "log_snr": ("t", np.array(log_snr)),
        "metric": metrics,
    }


def _cube(
    walked: Sequence[Trajectories], pairs: Sequence[tuple[int, int]], distances: Sequence[Distance]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance and null of pairs of trajectories, each ``(P, T, N, M)``. Each image is embedded once, whatever the number of pairs."""
    values, nulls = [], []
    for at_t in zip(*(w.estimates for w in walked), strict=True):
        embedded = [[d.embed(x) for x in at_t] for d in distances]
        both = [(d, e[a], e[b]) for a, b in pairs for d, e in zip(distances, embedded, strict=True)]
        values.append(torch.stack([d.between(u, v) for d, u, v in both], -1))
        nulls.append(torch.stack([d.null(u, v) for d, u, v in both], -1))
    shape = (len(values), -1, len(pairs), len(distances))
    distance, null = (torch.stack(x).reshape(shape).permute(2, 0, 1, 3).numpy() for x in (values, nulls))
    return distance, null


def _add_pairs(result: xr.Dataset, walked: Sequence[Trajectories], distances: Sequence[Distance]) -> None:
    distance, null = _cube(walked, pairs_of(len(walked)), distances)
    scored = np.array([d.scored for d in distances])
    dims = ("pair", "t", "sample", "metric")
    result["distance"], result["null"] = (dims, distance.astype(np.float32)), (dims, null.astype(np.float32))
    distance, null = (np.where(scored, x, np.nan) for x in (distance, null))  # PSNR is shown, and never scored
    alone = pair_score(distance, null, axis=2)
    for key, values in zip(("score", "score_low", "score_high"), alone, strict=True):
        result[key] = (("pair", "t", "metric"), values)
    family = (
        family_score(distance.mean(2), null.mean(2), len(walked))
        if len(walked) > 2
        else [values[0] for values in alone]
    )
    for key, values in zip(("family_score", "family_low", "family_high"), family, strict=True):
        result[key] = (("t", "metric"), values)
    result.attrs["interval"] = FAMILY.format(dof=len(walked) - 1, count=len(walked)) if len(walked) > 2 else PAIR
    result.attrs["pair_interval"] = PAIR


def _add_ceiling(
    result: xr.Dataset, walked: Sequence[Trajectories], again: Sequence[Trajectories], distances: Sequence[Distance]
) -> None:
    """The same model with twice the steps: how alike two sets of images are that differ by the solver alone."""
    ends = [Trajectories(w.name, w.estimates[-1:]) for w in [*walked, *again]]
    values = _cube(ends, [(k, k + len(walked)) for k in range(len(walked))], distances)[0][:, 0]
    result["ceiling"] = (("model", "sample", "metric"), values.astype(np.float32))


def _add_references(
    result: xr.Dataset,
    walked: Sequence[Trajectories],
    images: ImageSet,
    noise: SharedNoise,
    indices: Sequence[int],
    sampler: Sampler,
    grid: tuple[Tensor, Tensor],
    like: DiffusionModel,
    distances: Sequence[Distance],
    shown: int,
) -> None:
    references = [
        DiffusionModel(name, closed_form(name, images.all(), like.denoiser.schedule).to(like.device))
        for name in REFERENCES
    ]
    paths = [_walk(reference, noise, indices, sampler, *grid) for reference in references]
    pairs = [(k, len(walked) + r) for k in range(len(walked)) for r in range(len(paths))]
    shape = (len(walked), len(paths))
    distance, null = (x.reshape(*shape, *x.shape[1:]) for x in _cube([*walked, *paths], pairs, distances))
    scored = np.array([d.scored for d in distances])
    result.coords["reference"] = list(REFERENCES)
    result["reference_distance"] = (("model", "reference", "t", "sample", "metric"), distance.astype(np.float32))
    values = np.where(scored, score(distance.mean(3), null.mean(3)), np.nan)
    result["reference_score"] = (("model", "reference", "t", "metric"), values)
    pictures = np.stack([_shown(path.estimates, shown) for path in paths])
    result["reference_images"] = (("reference", "shown", "t", "channel", "row", "column"), pictures)


def _add_nearest(result: xr.Dataset, walked: Sequence[Trajectories], images: ImageSet, shown: int) -> None:
    pool = images.all()
    found = [nearest(w.estimates[-1], pool) for w in walked]
    result["nearest_distance"] = (("model", "sample"), np.stack([d.numpy() for d, _ in found]).astype(np.float32))
    pictures = np.stack([_to_bytes(pool[index[:shown].to(pool.device)].cpu()) for _, index in found])
    result["nearest_images"] = (("model", "shown", "channel", "row", "column"), pictures)


def _shown(estimates: Tensor, shown: int) -> np.ndarray:
    """``(T, N, C, H, W)`` -> ``(shown, T, C, H, W)`` as 0 ... 255."""
    return _to_bytes(estimates[:, :shown]).swapaxes(0, 1)


def _to_bytes(images: Tensor) -> np.ndarray:
    # int16: netCDF 3 has no unsigned bytes above 127.
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.int16).numpy()
