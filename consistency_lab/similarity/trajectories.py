"""What each model makes of the shared noise: its x0 estimates along the way, and its images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.clocks import common_times, kept_points
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, chunks, images_of
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError


class Trajectories(NamedTuple):
    """The x0 estimates of one model at the recorded times: ``(T, N, C, H, W)`` float32 on the CPU; the last is the image."""

    name: str
    estimates: Tensor


@dataclass(frozen=True)
class Walk:
    """How everybody samples in one comparison.

    Attributes:
        noise: what they start from.
        count: images 0 ... count - 1.
        sampler: method and steps.
        levels: grid points that are kept, the final image included.
    """

    noise: SharedNoise
    count: int
    sampler: Sampler
    levels: int

    @property
    def kept(self) -> Tensor:
        """Indices of the grid points that are kept, ``(levels,)``."""
        return kept_points(self.sampler.steps, self.levels)

    def with_steps(self, steps: int, levels: int) -> Walk:
        return replace(self, sampler=replace(self.sampler, steps=steps), levels=levels)


class Walked:
    """What was computed already, for a table that compares a model with many others: each is walked once, each reference made once."""

    def __init__(self) -> None:
        self._walks: dict[tuple[int, Walk, tuple[float, ...]], tuple[GenerativeModel, Trajectories]] = {}
        self._references: dict[Hashable, list[DiffusionModel]] = {}

    def of(self, model: DiffusionModel, walk: Walk, grid: Tensor) -> Trajectories:
        """The estimates of a model on a grid of times, at the levels that the walk keeps."""
        key = (id(model), walk, tuple(grid.tolist()))
        if key not in self._walks:
            self._walks[key] = (model, _estimates(model, walk, grid))  # the model is kept, so that its id stays its own
        return self._walks[key][1]

    def references(self, key: Hashable, make: Callable[[], list[DiffusionModel]]) -> list[DiffusionModel]:
        """The closed-form denoisers of that key, the same objects every time, so that their walks are known too."""
        if key not in self._references:
            self._references[key] = make()
        return self._references[key]


def walk_all(
    models: Sequence[GenerativeModel], walk: Walk, walked: Walked | None = None
) -> tuple[list[Trajectories], Tensor]:
    """Every model's estimates, and the times of the first at which they were kept ``(T,)``.

    Models that make an image in one go (a GAN, a VAE) have no way from noise to data: with one of them among the models, only the
    images are kept.

    Args:
        models: whose estimates are wanted.
        walk: how they sample.
        walked: what is known already; it is added to.

    Raises:
        UserError: schedules without a common noise level.
    """
    walked = Walked() if walked is None else walked
    diffusion = [model for model in models if isinstance(model, DiffusionModel)]
    if len(diffusion) == len(models):
        grids = common_times([model.denoiser for model in diffusion], walk.sampler.steps, walk.levels)[0]
        done = [walked.of(model, walk, grid) for model, grid in zip(diffusion, grids, strict=True)]
        return done, grids[0][walk.kept]
    done = []
    for model in models:
        if isinstance(model, DiffusionModel):
            images = walked.of(model, walk, model.denoiser.schedule.grid(walk.sampler.steps)).estimates[-1:]
        else:
            images = images_of(model, walk.noise, range(walk.count))[None]
        done.append(Trajectories(model.name, images))
    _check_shapes(done)
    return done, torch.zeros(1, dtype=torch.float64)


def _check_shapes(walks: Sequence[Trajectories]) -> None:
    """Raise `UserError` for images of different shapes: models of one noise may still make these."""
    for walk in walks[1:]:
        (own, first) = (tuple(w.estimates.shape[2:]) for w in (walk, walks[0]))
        if own != first:
            raise UserError(
                f"{walk.name!r} makes images {own} and {walks[0].name!r} {first}; images are (channels, height, width), and "
                "wrap_generator(..., channels_last=True) takes the other order."
            )


def _estimates(model: DiffusionModel, walk: Walk, grid: Tensor) -> Trajectories:
    wanted, parts = set(walk.kept.tolist()), []
    for chunk in chunks(range(walk.count)):
        steps = enumerate(model.path(walk.noise, chunk, walk.sampler, grid))
        parts.append(torch.stack([step.x0.float().cpu() for number, step in steps if number in wanted]))
    return Trajectories(model.name, torch.cat(parts, dim=1))


def to_bytes(images: Tensor) -> np.ndarray:
    """Images in [-1, 1] as 0 ... 255 for display; int16, because netCDF 3 has no unsigned bytes above 127."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.int16).numpy()


def shown_images(trajectories: Trajectories, shown: int) -> np.ndarray:
    """The first samples of ``(T, N, C, H, W)`` as ``(shown, T, C, H, W)`` bytes."""
    return to_bytes(trajectories.estimates[:, :shown]).swapaxes(0, 1)
