"""What each model makes of the shared noise: its x0 estimates along the way, and its images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import places
from consistency_lab.diffusion.log_snr import align_pair, kept_points, shared_axis
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, RecordedWalk, chunks, images_of
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.similarity.at_once import sampled_at_once, stacked
from consistency_lab.similarity.statistics import pairs_of

LEVEL = 1e-3  # in log-SNR: levels that two engines computed in float32 differ by less


class Trajectories(NamedTuple):
    """The x0 estimates of one model at the recorded times: ``(T, N, C, H, W)`` float32; the last is the image.

    All of a comparison are on one device, where its first model is (`place_of`): there they are measured.
    """

    name: str
    estimates: Tensor


@dataclass(frozen=True)
class WalkPlan:
    """How all models sample in one comparison.

    Attributes:
        noise: what they start from.
        count: images 0 ... count - 1.
        sampler: method and steps.
        levels: grid points that are kept, the final image included.
        labels: what conditional models are asked for, image i for the label i mod their number; None: for all that they know.
        only: the numbers of the images that are made, of a block of them; None: all.
        finer: how many steps stand for one of those whose levels are kept.
    """

    noise: SharedNoise
    count: int
    sampler: Sampler
    levels: int
    labels: tuple[int, ...] | None = None
    only: tuple[int, ...] | None = None
    finer: int = 1

    @property
    def samples(self) -> Sequence[int]:
        """The numbers of the images that are made."""
        return range(self.count) if self.only is None else self.only

    @property
    def kept(self) -> Tensor:
        """Indices of the grid points that are kept, ``(levels,)``."""
        return kept_points(self.sampler.steps // self.finer, self.levels) * self.finer

    def doubled(self) -> WalkPlan:
        """The same levels, by twice the steps."""
        return replace(self, sampler=replace(self.sampler, steps=2 * self.sampler.steps), finer=2)

    def of(self, samples: Sequence[int]) -> WalkPlan:
        """The same for those images alone."""
        return self if len(samples) == self.count else replace(self, only=tuple(samples))


def place_of(models: Sequence[GenerativeModel]) -> torch.device:
    """Where models are compared: the device of the first that has one; the CPU where none has (folders, recordings)."""
    devices = (getattr(model, "device", None) for model in models)
    return next((each for each in devices if isinstance(each, torch.device)), torch.device("cpu"))


class WalkCache:
    """What was computed already, for a table that compares a model with many others: each is walked once, each reference made once.

    Walks are held where they were asked for first, on a GPU in its memory.
    """

    def __init__(self) -> None:
        self._walks: dict[tuple[int, WalkPlan, tuple[float, ...]], tuple[GenerativeModel, Trajectories]] = {}
        self._references: dict[Hashable, list[DiffusionModel]] = {}
        self._pools: dict[tuple[str, torch.device], Tensor] = {}

    def of(self, model: DiffusionModel, walk: WalkPlan, grid: Tensor, place: torch.device) -> Trajectories:
        """The estimates of a model on a grid of times, at the levels that the walk keeps, on that device."""
        key = (id(model), walk, tuple(grid.tolist()))
        if key not in self._walks:  # the model is kept, so that its id stays its own
            self._walks[key] = (model, _estimates(model, walk, grid, place))
        found = self._walks[key][1]
        return found._replace(estimates=found.estimates.to(place))

    def ahead(self, models: Sequence[DiffusionModel], walk: WalkPlan, place: torch.device) -> None:
        """Walk those models at once that are faster so (`at_once`), each on the grid of its schedule."""
        for group in sampled_at_once(models):
            grid = group[0].denoiser.schedule.grid(walk.sampler.steps)
            keys = [(id(model), walk, tuple(grid.tolist())) for model in group]
            if any(key in self._walks for key in keys):
                continue
            estimates = _estimates(stacked(group), walk, grid, place, len(group)).estimates
            for key, model, own in zip(keys, group, estimates.chunk(len(group), 1), strict=True):
                self._walks[key] = (model, Trajectories(model.name, own))

    def forget(self) -> None:
        """Drop the walks, which are of one block of samples, and keep references and training set, which are of all."""
        self._walks.clear()

    def references(self, key: Hashable, make: Callable[[], list[DiffusionModel]]) -> list[DiffusionModel]:
        """The closed-form denoisers of that key, the same objects every time, so that their walks are known too."""
        if key not in self._references:
            self._references[key] = make()
        return self._references[key]

    def pool(self, images: ImageSet, place: torch.device) -> Tensor:
        """All images of a set on that device, in which nearest ones are looked for."""
        key = (images.fingerprint, place)
        if key not in self._pools:
            self._pools = {key: images.all().to(place)}
        return self._pools[key]


@dataclass(frozen=True)
class ModelWalks:
    """What models make of the shared noise: each on its own, and again wherever it is compared with a model of another schedule.

    A diffusion model walks its own schedule's grid. Two of different schedules cannot be compared there: they walk the alignment of their
    pair, which depends on those two schedules alone, so that a pair's distance does not depend on the order or the company of its models.

    Attributes:
        every: all walks; the first K are the models' own.
        owners: whose walk each is, as the model's index.
        grids: the times of each walk, empty for a model that makes an image in one go.
        sides: for every pair of `pairs_of`, the indices of its two walks.
        t, log_snr: those of each pair's alignment at the kept levels, ``(P, T)`` float64.
        beside: for every walk, those of the closed-form references on its schedule and grid; empty where there are none.
    """

    every: list[Trajectories]
    owners: list[int]
    grids: list[Tensor]
    sides: list[tuple[int, int]]
    t: Tensor
    log_snr: Tensor
    beside: list[list[Trajectories]] = field(default_factory=list)

    @property
    def place(self) -> torch.device:
        """Where they are."""
        return self.every[0].estimates.device

    @property
    def own(self) -> list[Trajectories]:
        """Every model's walk of its own grid."""
        return self.every[: 1 + max(self.owners)]

    @property
    def axis(self) -> tuple[np.ndarray, np.ndarray]:
        """``t`` and ``log_snr`` of the comparison ``(T,)``: those of all pairs' alignments, or the mean over pairs where they differ."""
        return shared_axis(self.t).numpy(), shared_axis(self.log_snr).numpy()

    def restricted(self, models: Sequence[int], samples: Sequence[int]) -> ModelWalks:
        """The walks of those models and samples alone, the models in that order."""
        old = [k for k, owner in enumerate(self.owners) if owner in models]
        place = {k: new for new, k in enumerate(old)}
        pairs = [i for i, sides in enumerate(self.sides) if all(side in place for side in sides)]
        return ModelWalks(
            restricted([self.every[k] for k in old], samples),
            [list(models).index(self.owners[k]) for k in old],
            [self.grids[k] for k in old],
            [(place[a], place[b]) for a, b in (self.sides[i] for i in pairs)],
            self.t[pairs],
            self.log_snr[pairs],
            [restricted(self.beside[k], samples) for k in old] if self.beside else [],
        )


def walk_models(
    models: Sequence[GenerativeModel],
    walk: WalkPlan,
    known: WalkCache | None = None,
    place: torch.device | None = None,
) -> ModelWalks:
    """Every model's estimates on its own grid and on the alignments of its pairs.

    Models that make an image in one go (a GAN, a VAE) have no way from noise to data: with one of them among the models, only the
    images are kept. Recorded ones are compared at the levels that all of them have, by their x0 estimates where all have these, and else
    by their latents.

    Args:
        models: whose estimates are wanted.
        walk: how they sample.
        known: what is known already; it is added to.
        place: where the estimates go; that of the models by default (`place_of`).

    Raises:
        UserError: two schedules, or recordings, without a common noise level.
    """
    known, at = WalkCache() if known is None else known, place or place_of(models)
    if recorded := recorded_walks(models):
        return _recorded(recorded, walk)
    along = all(isinstance(model, DiffusionModel) for model in models)
    known.ahead([model for model in models if isinstance(model, DiffusionModel)], walk, at)

    def estimates(model: GenerativeModel, grid: Tensor) -> Trajectories:
        if not isinstance(model, DiffusionModel):
            return Trajectories(model.name, images_of(model, walk.noise, walk.samples)[None].to(at))
        found = known.of(model, walk, grid, at)
        return found if along else Trajectories(found.name, found.estimates[-1:])

    kept = walk.kept if along else torch.tensor([walk.sampler.steps])
    walks = meetings(models, walk.sampler.steps, kept, estimates)
    _check_shapes(walks.own)
    return walks


def recorded_walks(models: Sequence[GenerativeModel]) -> list[RecordedWalk]:
    """The models, if every one of them brings its own estimates; else none."""
    found: list[RecordedWalk] = [model for model in models if isinstance(model, RecordedWalk)]
    return found if len(found) == len(models) else []


def recorded_quantity(models: Sequence[RecordedWalk]) -> str:
    """What recorded models are compared by."""
    return "x0" if all("x0" in model.quantities for model in models) else "latents"


def common_levels(models: Sequence[RecordedWalk]) -> list[list[int]]:
    """The noise levels that all recorded models have, as places in the levels of each, from noise to data.

    Raises:
        UserError: there is none; two grids are named.
    """
    first = models[0]
    found: list[list[int]] = []
    for place, level in enumerate(first.log_snr.tolist()):
        places = [place]
        for other in models[1:]:
            near = [k for k, own in enumerate(other.log_snr.tolist()) if own == level or abs(own - level) <= LEVEL]
            places += near[-1:]
        if len(places) == len(models):
            found.append(places)
    if not found:
        least = min(models[1:], key=lambda other: len(common_levels([first, other])) if len(models) > 2 else 0)
        raise UserError(
            f"{first.name!r} and {least.name!r} have no noise level in common ({_grid(first)}; {_grid(least)}); record both with the same "
            "steps and scheduler."
        )
    return [list(places) for places in zip(*found, strict=True)]


def recorded_attributes(models: Sequence[RecordedWalk]) -> tuple[dict[str, str], list[str]]:
    """What a comparison of recorded models says of how it was made: attributes, and sentences for the reader; nothing without models."""
    if not models:
        return {}, []
    quantity, places = recorded_quantity(models), common_levels(models)[0]
    said = []
    if quantity == "latents":
        said.append(
            "the latents themselves are compared along t, since not every recording holds x0 estimates: near noise they are the noise that "
            "all share, so scores there are high whatever the models do."
        )
    most = max(len(model.t) for model in models)
    if len(places) < most:
        said.append(f"the recordings are compared at the {len(places)} noise levels that all have, of up to {most}.")
    return {"quantity": quantity, "levels": f"{len(places)} in common"}, said


def _grid(model: RecordedWalk) -> str:
    levels = [f"{level:.4g}" for level in model.log_snr.tolist()]
    return f"{model.name!r}: log-SNR {', '.join(levels if len(levels) < 8 else [*levels[:4], '...', *levels[-3:]])}"


def _recorded(models: list[RecordedWalk], walk: WalkPlan) -> ModelWalks:
    """The estimates that were recorded, at ``walk.levels`` of the levels in common."""
    places = common_levels(models)
    kept = kept_points(len(places[0]) - 1, walk.levels).tolist()
    places = [[each[k] for k in kept] for each in places]
    quantity = recorded_quantity(models)
    every = [
        Trajectories(model.name, model.estimates(walk.samples, levels, quantity))
        for model, levels in zip(models, places, strict=True)
    ]
    _check_shapes(every)
    t = torch.stack([model.t[levels] for model, levels in zip(models, places, strict=True)])
    pairs = pairs_of(len(models))
    rows = torch.stack([(t[a] + t[b]) / 2 for a, b in pairs]) if pairs else t[:0]
    log_snr = models[0].log_snr[places[0]].expand(len(pairs), -1)
    return ModelWalks(every, [*range(len(models))], [each.clone() for each in t], list(pairs), rows, log_snr)


def meetings(
    models: Sequence[GenerativeModel],
    steps: int,
    kept: Tensor,
    estimates: Callable[[GenerativeModel, Tensor], Trajectories],
) -> ModelWalks:
    """The walks of models and of their pairs.

    Args:
        models: one or more.
        steps: of every grid.
        kept: indices of the grid points at which estimates are kept ``(T,)``; the last grid point alone where a model has no path.
        estimates: what a model makes on a grid; the grid is empty for a model that makes an image in one go.
    """
    every: list[Trajectories] = []
    owners: list[int] = []
    grids: list[Tensor] = []

    def place(index: int, grid: Tensor) -> int:
        """Where the walk of a model on a grid is; it is made if it was not."""
        for at, (owner, other) in enumerate(zip(owners, grids, strict=True)):
            if owner == index and torch.equal(grid, other):
                return at
        every.append(estimates(models[index], grid))
        owners.append(index)
        grids.append(grid)
        return len(every) - 1

    schedules = [model.denoiser.schedule if isinstance(model, DiffusionModel) else None for model in models]
    for index, schedule in enumerate(schedules):
        place(index, torch.empty(0) if schedule is None else schedule.grid(steps))
    sides, t, log_snr = [], [], []
    for a, b in pairs_of(len(models)):
        one, other = schedules[a], schedules[b]
        if one is None or other is None:
            sides.append((a, b))
            t.append(torch.zeros(len(kept), dtype=torch.float64))
            log_snr.append(torch.full((len(kept),), torch.inf, dtype=torch.float64))
            continue
        alignment = align_pair(one, other, steps)
        sides.append((place(a, alignment.first), place(b, alignment.second)))
        t.append(alignment.t[kept])
        log_snr.append(alignment.log_snr[kept])
    empty = torch.empty(0, len(kept), dtype=torch.float64)  # of the pairs of one model
    at, level = (torch.stack(rows) if rows else empty for rows in (t, log_snr))
    return ModelWalks(every, owners, grids, sides, at, level)


def restricted(walks: Sequence[Trajectories], samples: Sequence[int]) -> list[Trajectories]:
    """The walks with those samples alone."""
    if walks and len(samples) == walks[0].estimates.shape[1]:
        return list(walks)
    if not walks:
        return []
    chosen = places(samples, walks[0].estimates.device)
    return [Trajectories(w.name, w.estimates[:, chosen]) for w in walks]


def _check_shapes(walks: Sequence[Trajectories]) -> None:
    """Raise `UserError` for images of different shapes: models of one noise may still make these."""
    for walk in walks[1:]:
        (own, first) = (tuple(w.estimates.shape[2:]) for w in (walk, walks[0]))
        if own != first:
            raise UserError(
                f"{walk.name!r} makes images {own} and {walks[0].name!r} {first}; images are (channels, height, width), and "
                "wrap_generator(..., channels_last=True) takes the other order."
            )


def _estimates(
    model: DiffusionModel, walk: WalkPlan, grid: Tensor, place: torch.device, copies: int = 1
) -> Trajectories:
    """``copies``: of every chunk of the noise, one for each of so many models that are sampled at once; samples of one model in a row."""
    wanted, parts = set(walk.kept.tolist()), []
    for chunk in chunks(walk.samples):
        steps = enumerate(model.path(walk.noise, [*chunk] * copies, walk.sampler, grid, walk.labels))
        kept = torch.stack([step.x0.float() for number, step in steps if number in wanted]).to(place)
        parts.append(kept.unflatten(1, (copies, len(chunk))))
    return Trajectories(model.name, torch.cat(parts, dim=2).flatten(1, 2))


def to_bytes(images: Tensor) -> np.ndarray:
    """Images in [-1, 1] as 0 ... 255 for display; int16, because netCDF 3 has no unsigned bytes above 127."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.int16).cpu().numpy()


def shown_images(trajectories: Trajectories, shown: int) -> np.ndarray:
    """The first samples of ``(T, N, C, H, W)`` as ``(shown, T, C, H, W)`` bytes."""
    return to_bytes(trajectories.estimates[:, :shown]).swapaxes(0, 1)
