"""What is measured of each sample of a comparison, block after block; scores are made of it when all samples have gone by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import hand_back
from consistency_lab.diffusion.log_snr import passes_again
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import Distance
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.similarity.blocks import FEW, plain_over_all, with_partners
from consistency_lab.similarity.checks import Kept, extremes_of, kept_of, not_finite, sanity_measured
from consistency_lab.similarity.controls import (
    ceiling_measured,
    nearest_measured,
    references_measured,
    walked_twice,
    with_references,
)
from consistency_lab.similarity.pairwise import SHIFTS, pairs_measured
from consistency_lab.similarity.pictures import Pictures, pictured
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.similarity.robust import typical_alone
from consistency_lab.similarity.trajectories import (
    ModelWalks,
    Trajectories,
    WalkCache,
    WalkPlan,
    place_of,
    restricted,
    walk_models,
)

_PIXELS = 2**20  # of each model that the quantiles of all pixels are taken of, where samples come in blocks

Values = dict[str, tuple[tuple[str, ...], np.ndarray]]  # by name: dimensions and array


@dataclass(frozen=True)
class Asked:
    """What is asked of every block of samples.

    Attributes:
        walk: how models sample, of all samples.
        distances: the metrics.
        images: the training set, or None.
        references: closed-form denoisers; none where they cannot be.
        ceiling: whether models are compared with themselves at twice the solver steps.
        again: a second run of the first model, or None.
        labels: what each sample was asked for ``(N,)``, or None.
        frames: of every sample, over which its distances are averaged; 1 for images.
        shown: samples whose pictures are kept along the trajectory.
    """

    walk: WalkPlan
    distances: Sequence[Distance]
    images: ImageSet | None
    references: Sequence[str]
    ceiling: bool
    again: GenerativeModel | None
    labels: np.ndarray | None
    frames: int
    shown: int


@dataclass
class Measured:
    """What was measured.

    Attributes:
        kept: which models and samples.
        alone_warning: of samples that were left alone in their block; empty where there are none.
        values: per sample, float64: what the ``..._measured`` functions of this room give, as variables.
        blocks: the number of each sample's block ``(N,)``; None where there is one.
        t, log_snr, pair_log_snr: of the comparison and of its pairs.
        alone: scores of typical samples compared alone (`typical_alone`), where the images were there to do so.
        pictures, extremes: of the samples that are shown, and of those at both ends.
        references: names of the closed-form denoisers.
    """

    kept: Kept
    alone_warning: str
    values: Values
    blocks: np.ndarray | None
    t: np.ndarray
    log_snr: np.ndarray
    pair_log_snr: np.ndarray
    alone: np.ndarray | None
    pictures: Pictures
    extremes: Pictures
    references: list[str]


def measure(
    models: Sequence[GenerativeModel], asked: Asked, blocks: Sequence[np.ndarray], known: WalkCache | None = None
) -> Measured:
    """Measure blocks of samples.

    A sample at which some model gives values that are not finite is left out. If a model gives too many of them, all is measured again
    without it, and with the samples that it alone had lost.

    Args:
        models: two or more.
        asked: what is measured.
        blocks: the samples of each.
        known: trajectories that are known, and are to be remembered: of one block.

    Raises:
        UserError: too little is left.
    """
    found = _measure(models, asked, blocks, known)
    if len(found.kept.models) == len(models):
        return found
    again = asked.again if 0 in found.kept.models else None
    rest = _measure([models[k] for k in found.kept.models], replace(asked, again=again), blocks, known)
    warning = " ".join(filter(None, [found.kept.warning, rest.alone_warning]))
    rest.kept = found.kept._replace(samples=rest.kept.samples, warning=warning)
    return rest


def _measure(
    models: Sequence[GenerativeModel], asked: Asked, blocks: Sequence[np.ndarray], known: WalkCache | None
) -> Measured:
    cache = WalkCache() if known is None else known
    parts: list[Values] = []
    bad, lost = [], []
    pictures, extremes, alone = Pictures(), Pictures(), None
    several = len(blocks) > 1
    pool = None if asked.images is None else asked.images.all().to(place_of(models))
    for block in blocks:
        walks, second = _walked(models, asked, block, asked.frames // 2, cache)
        bad_here, lost_here = not_finite(walks.own, list(zip(walks.owners, walks.every, strict=True)))
        for k, run in enumerate(second.runs):
            lost_here[k, np.isin(block, second.samples)] |= not_finite([run])[1][0]
        bad.append(bad_here)
        lost.append(lost_here)
        samples = with_partners(block[~lost_here.any(0)], asked.labels)
        if not len(samples):
            continue
        inside = np.flatnonzero(np.isin(block, samples)).tolist()
        walks, second = walks.restricted(range(len(models)), inside), second.among(samples, asked.labels)
        labels = None if asked.labels is None else asked.labels[samples]
        shifts = 1 if several and len(block) < FEW else SHIFTS if len(samples) > 2 else 0
        values = _pairs(walks, second, asked, samples, shifts)
        for frame in range(asked.frames - 1):  # of all but the one that is measured already
            number = frame + (frame >= asked.frames // 2)
            of_frame = _walked(models, asked, samples, number, WalkCache())
            for name, (_, more) in _pairs(*of_frame, asked, samples, shifts).items():
                values[name][1][...] += more
        if asked.frames > 1:
            values = {name: (dims, array / asked.frames) for name, (dims, array) in values.items()}
        if walks.beside:
            values |= references_measured(walks, asked.distances, labels)
        stride = 1 if not several else -(-asked.walk.count * walks.own[0].estimates[0, 0].numel() // _PIXELS)
        values |= sanity_measured(walks.own, stride)
        if pool is not None:
            found = nearest_measured(walks.own, pool)
            values["nearest_distance"] = (("model", "sample"), np.stack([each.distance for each in found]))
            values["nearest_place"] = (("model", "sample"), np.stack([each.place for each in found]))
        values["number"] = (("sample",), samples)
        values["block"] = (("sample",), np.full(len(samples), len(parts), dtype=np.int32))
        if not several and asked.frames == 1 and len(samples) > 2:
            last = values["distance"][1][:, -1].astype(np.float32).astype(np.float64)
            alone = typical_alone(walks, last, asked.distances, labels)
        parts.append(values)
        _picture_first(pictures, asked.shown, samples, walks, values, pool)
        _picture_ends(extremes, parts, walks, asked.distances)
        if known is None:
            cache.forget()
        if several:
            hand_back()
    order = np.concatenate(blocks).argsort()
    axis = torch.from_numpy(walks.axis[0])
    kept = kept_of([m.name for m in models], axis, *(np.concatenate(x, -1)[..., order] for x in (bad, lost)))
    if not parts and len(kept.models) == len(models):
        raise UserError("no sample is left that has another one beside it in its block; raise block, or count.")
    joined = _joined(parts)
    warning = ""
    if parts and (without := len(kept.samples) - len(joined["number"][1])):
        warning = f"{without} more samples are left out: no other one is left that could be their null."
    if parts:
        kept = kept._replace(
            samples=joined["number"][1].tolist(), warning=" ".join(filter(None, [kept.warning, warning]))
        )
    if "ceiling" in joined and np.isnan(joined["ceiling"][1]).all():  # no two second runs are left
        joined = {name: each for name, each in joined.items() if not name.startswith("ceiling")}
    in_blocks = joined["block"][1] if len(parts) > 1 else None
    if in_blocks is not None and "plain_null" in joined:
        dims, plain = joined["plain_null"]
        under = asked.labels[kept.samples]  # type: ignore[index]  # there is a plain null only where there are labels
        joined["plain_null"] = (dims, plain_over_all(plain, joined["null"][1], under, in_blocks))
    return Measured(
        kept,
        warning,
        joined,
        in_blocks,
        *walks.axis,
        walks.log_snr.numpy(),
        alone,
        pictures,
        extremes,
        [reference.name for reference in walks.beside[0]] if walks.beside else [],
    )


@dataclass(frozen=True)
class _Second:
    """Second runs, for the ceiling: of the first models, or of all, and of which samples (in their order)."""

    runs: list[Trajectories]
    samples: np.ndarray

    def among(self, samples: np.ndarray, labels: np.ndarray | None) -> _Second:
        """Those of the samples that are left, and have another one, of their label, that is their null."""
        left = with_partners(self.samples[np.isin(self.samples, samples)], labels)
        return _Second(restricted(self.runs, np.flatnonzero(np.isin(self.samples, left)).tolist()), left)


def _walked(
    models: Sequence[GenerativeModel], asked: Asked, samples: np.ndarray, frame: int, cache: WalkCache
) -> tuple[ModelWalks, _Second]:
    """The models' walks of a block of samples, of clips at that frame, and the second runs: of all models, or of the first."""
    walk = asked.walk.of(samples.tolist())
    walks = walk_models(_at(models, frame), walk, cache)
    diffusion = [model for model in models if isinstance(model, DiffusionModel)]
    if asked.images is not None and asked.references:
        walks = with_references(walks, diffusion, walk, cache, asked.images, asked.references)
    if asked.again is not None:
        again = walk_models(_at([models[0], asked.again], frame), walk, cache, walks.place).own[1]
        return walks, _Second([again], samples)
    if not asked.ceiling:
        return walks, _Second([], samples[:0])
    twice = samples[walked_twice(len(samples), None if asked.labels is None else asked.labels[samples])]
    return walks, _Second([_second_run(m, asked.walk.of(twice.tolist()), cache, walks.place) for m in diffusion], twice)


def _second_run(model: DiffusionModel, walk: WalkPlan, cache: WalkCache, place: torch.device) -> Trajectories:
    """By twice the steps: at the levels that are kept, or at both ends where the finer grid does not pass them."""
    schedule, steps = model.denoiser.schedule, walk.sampler.steps
    plan = walk.doubled() if passes_again(schedule, steps) else replace(walk.doubled(), levels=2)
    return cache.of(model, plan, schedule.grid(2 * steps), place)


def _at(models: Sequence[GenerativeModel], frame: int) -> list[GenerativeModel]:
    """The models, those of clips at that frame."""
    return [model.at(frame) if isinstance(model, FolderModel) and model.clips else model for model in models]


def _pairs(walks: ModelWalks, second: _Second, asked: Asked, samples: np.ndarray, shifts: int) -> Values:
    """Distances and nulls of pairs, and of models with their second runs."""
    labels = None if asked.labels is None else asked.labels[samples]
    values = pairs_measured(walks, asked.distances, labels, shifts)
    if not second.runs:
        return values
    twice = np.flatnonzero(np.isin(samples, second.samples)).tolist()
    return values | ceiling_measured(walks.own, second.runs, asked.distances, labels, twice)


def _joined(parts: Sequence[Values]) -> Values:
    """The values of all blocks, samples in their order."""
    if len(parts) < 2:
        return dict(parts[0]) if parts else {}
    order = np.concatenate([part["number"][1] for part in parts]).argsort()
    joined: Values = {}
    for name, (dims, _) in parts[0].items():
        axis = next(dims.index(along) for along in ("sample", "other", "pixel") if along in dims)
        whole = np.concatenate([part[name][1] for part in parts], axis)
        joined[name] = (dims, whole.take(order, axis) if "sample" in dims else whole)
    return joined


def _picture_first(
    pictures: Pictures, shown: int, samples: np.ndarray, walks: ModelWalks, values: Values, pool: Tensor | None
) -> None:
    """Keep what is shown of the first samples: trajectories, those of references, and nearest training images."""
    wanted = sorted([*pictures.numbers, *samples.tolist()])[:shown]
    new = np.flatnonzero(np.isin(samples, wanted))
    made = {"images": np.stack([pictured(w.estimates[:, new]) for w in walks.own])}  # (model, t, sample, ...)
    if walks.beside:
        made["reference_images"] = np.stack([pictured(w.estimates[:, new]) for w in walks.beside[0]])
    first = {name: each.transpose(2, 0, 1, 3, 4, 5) for name, each in made.items()}
    if pool is not None:
        places = torch.from_numpy(values["nearest_place"][1][:, new]).to(pool.device)
        first["nearest_images"] = np.stack([pictured(pool[each].cpu()) for each in places], 1)
    pictures.add(samples[new].tolist(), **first)
    pictures.only(wanted)


def _picture_ends(
    pictures: Pictures, parts: Sequence[Values], walks: ModelWalks, distances: Sequence[Distance]
) -> None:
    """Keep the final images of the samples at either end so far, of every metric."""
    last = [part["distance"][1][:, -1:].astype(np.float32) for part in parts]
    numbers = np.concatenate([part["number"][1] for part in parts])
    sofar = xr.Dataset(
        {"distance": (("pair", "t", "sample", "metric"), np.concatenate(last, 2))},
        {"sample": numbers, **metric_coordinates(distances)},
    ).isel(sample=numbers.argsort())
    wanted = sofar["sample"].values[extremes_of(sofar)].tolist()
    samples = parts[-1]["number"][1]
    new = np.flatnonzero(np.isin(samples, wanted))
    pictures.add(samples[new].tolist(), images=np.stack([pictured(w.estimates[-1, new]) for w in walks.own], 1))
    pictures.only(wanted)
