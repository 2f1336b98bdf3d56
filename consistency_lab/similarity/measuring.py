"""What is measured of each sample of a comparison, of one block of samples; scores are made of it when all have gone by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.log_snr import passes_again
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.metrics.distances import Distance
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.similarity.blocks import FEW, with_partners
from consistency_lab.similarity.checks import not_finite, sanity_measured
from consistency_lab.similarity.controls import (
    ceiling_measured,
    nearest_measured,
    references_measured,
    walked_twice,
    with_references,
)
from consistency_lab.similarity.pairwise import SHIFTS, pairs_measured
from consistency_lab.similarity.pictures import pictured
from consistency_lab.similarity.robust import typical_alone
from consistency_lab.similarity.trajectories import (
    ModelWalks,
    Trajectories,
    WalkCache,
    WalkPlan,
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
class Block:
    """What was measured of one block of samples.

    Attributes:
        samples: of the block ``(n,)``.
        bad, lost: of these, where values were not finite (`not_finite`).
        values: per sample that is left, float64: what the ``..._measured`` functions of this room give, as variables; empty if none is.
        t, log_snr, pair_log_snr: of the comparison and of its pairs.
        alone: scores of typical samples compared alone (`typical_alone`), where the block is all there is.
        first: pictures of the first samples that are left, by name, samples first.
        last: final images of all that are left ``(n, model, C, H, W)``.
        references: names of the closed-form denoisers.
    """

    samples: np.ndarray
    bad: np.ndarray
    lost: np.ndarray
    values: Values
    t: np.ndarray
    log_snr: np.ndarray
    pair_log_snr: np.ndarray
    alone: np.ndarray | None
    first: dict[str, np.ndarray]
    last: np.ndarray
    references: list[str]

    @property
    def left(self) -> np.ndarray:
        """Numbers of the samples that are left."""
        return self.values["number"][1] if self.values else self.samples[:0]


def measure_block(
    models: Sequence[GenerativeModel], asked: Asked, samples: np.ndarray, several: bool, cache: WalkCache
) -> Block:
    """Measure one block of samples.

    Args:
        models: two or more.
        asked: what is measured.
        samples: of the block.
        several: whether there are other blocks.
        cache: what is known of these samples, and is to be remembered.
    """
    walks, second = _walked(models, asked, samples, asked.frames // 2, cache)
    bad, lost = not_finite(walks.own, list(zip(walks.owners, walks.every, strict=True)))
    for k, run in enumerate(second.runs):
        lost[k, np.isin(samples, second.samples)] |= not_finite([run])[1][0]
    left = with_partners(samples[~lost.any(0)], asked.labels)
    axis, pair_axis = walks.axis, walks.log_snr.numpy()
    names = [reference.name for reference in walks.beside[0]] if walks.beside else []
    inside = np.flatnonzero(np.isin(samples, left)).tolist()
    walks, second = walks.restricted(range(len(models)), inside), second.among(left, asked.labels)
    values, alone = _values(models, asked, left, several, walks, second) if len(left) else ({}, None)
    pool = None if asked.images is None else cache.pool(asked.images, walks.place)
    if len(left) and pool is not None:
        found = nearest_measured(walks.own, pool)
        values["nearest_distance"] = (("model", "sample"), np.stack([each.distance for each in found]))
        values["nearest_place"] = (("model", "sample"), np.stack([each.place for each in found]))
    first = _first(walks, values, pool, asked.shown) if len(left) else {}
    last = np.stack([pictured(w.estimates[-1]) for w in walks.own], 1) if len(left) else np.empty(0)
    return Block(samples, bad, lost, values, *axis, pair_axis, alone, first, last, names)


def _values(
    models: Sequence[GenerativeModel],
    asked: Asked,
    samples: np.ndarray,
    several: bool,
    walks: ModelWalks,
    second: _Second,
) -> tuple[Values, np.ndarray | None]:
    """The numbers of the samples that are left, and the scores of typical ones alone."""
    labels = None if asked.labels is None else asked.labels[samples]
    shifts = 1 if several and len(samples) < FEW else SHIFTS if len(samples) > 2 else 0
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
    values["number"] = (("sample",), samples)
    if several:
        if "other_noise" in values:  # the largest of all, of which medians are taken
            dims, single = values["other_noise"]
            values["other_noise"] = (dims, single.astype(np.float32))
        # As they arrive from another process: numpy's sums follow the order in memory.
        return {name: (dims, np.ascontiguousarray(each)) for name, (dims, each) in values.items()}, None
    if asked.frames > 1 or len(samples) < 3:
        return values, None
    last = values["distance"][1][:, -1].astype(np.float32).astype(np.float64)
    return values, typical_alone(walks, last, asked.distances, labels)


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
    plan = asked.walk.of(twice.tolist())
    return walks, _Second(_second_runs(diffusion, plan, cache, walks.place), twice)


def _second_runs(
    models: Sequence[DiffusionModel], walk: WalkPlan, cache: WalkCache, place: torch.device
) -> list[Trajectories]:
    """By twice the steps: at the levels that are kept, or at both ends where the finer grid does not pass them."""
    twice = walk.doubled()
    plans = [
        twice if passes_again(model.denoiser.schedule, walk.sampler.steps) else replace(twice, levels=2)
        for model in models
    ]
    for plan in dict.fromkeys(plans):
        cache.ahead([model for model, own in zip(models, plans, strict=True) if own == plan], plan, place)
    grids = [model.denoiser.schedule.grid(twice.sampler.steps) for model in models]
    return [cache.of(*each, place) for each in zip(models, plans, grids, strict=True)]


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


def _first(walks: ModelWalks, values: Values, pool: Tensor | None, shown: int) -> dict[str, np.ndarray]:
    """What is shown of the first samples: trajectories, those of references, and nearest training images; samples first."""
    made = {"images": np.stack([pictured(w.estimates[:, :shown]) for w in walks.own])}  # (model, t, sample, ...)
    if walks.beside:
        made["reference_images"] = np.stack([pictured(w.estimates[:, :shown]) for w in walks.beside[0]])
    first = {name: each.transpose(2, 0, 1, 3, 4, 5) for name, each in made.items()}
    if pool is not None:
        places = torch.from_numpy(values["nearest_place"][1][:, :shown]).to(pool.device)
        first["nearest_images"] = np.stack([pictured(pool[each].cpu()) for each in places], 1)
    return first
