"""Start with one model, or one noise, and continue with another from a noise level on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from consistency_lab.devices import measuring, while_running
from consistency_lab.diffusion.model import DiffusionModel, chunks
from consistency_lab.diffusion.sampling import Sampler, SamplerStep, sample_path, start_state


class Course(NamedTuple):
    """One model's path from noise to images, at the kept levels.

    Attributes:
        y: ``x_t / alpha``, the state that all schedules share, ``(T, N, C, H, W)`` float64 on the CPU; the last is the image.
        x0: the estimates made there, the same shape.
        images: whose noise it started from, ``(N,)``.
    """

    y: Tensor
    x0: Tensor
    images: Sequence[int]


def course(
    model: DiffusionModel, noise: Tensor, images: Sequence[int], sampler: Sampler, times: Tensor, kept: Tensor
) -> Course:
    """Sample from the noise ``(N, C, H, W)`` of the images with those numbers, and keep the states at the indices ``kept`` of ``times``."""
    wanted, y, x0 = set(kept.tolist()), [], []
    for part in chunks(range(len(images))):
        start = start_state(model.denoiser, noise[part[0] : part[-1] + 1].to(model.device), float(times[0]))
        states, estimates = [], []
        for number, step in enumerate(_steps(model, start, sampler, times, [images[i] for i in part])):
            if number in wanted:
                states.append(step.x_t / model.denoiser.schedule.alpha(step.t))
                estimates.append(step.x0)
        y.append(torch.stack(states).cpu())
        x0.append(torch.stack(estimates).cpu())
    return Course(torch.cat(y, 1), torch.cat(x0, 1), images)


def finished(model: DiffusionModel, y: Tensor, images: Sequence[int], sampler: Sampler, times: Tensor) -> Tensor:
    """The images ``(N, C, H, W)`` float64 that the model makes of the states ``y`` at ``times[0]``; ``y`` itself where that is 0."""
    if len(times) == 1:
        return y
    alpha, done = model.denoiser.schedule.alpha(float(times[0])), []
    for part in chunks(range(len(images))):
        start = (y[part[0] : part[-1] + 1] * alpha).to(model.device)
        for step in _steps(model, start, sampler, times, [images[i] for i in part]):
            last = step
        done.append(last.x_t.cpu())
    return torch.cat(done)


def handed_over(first: Course, second: DiffusionModel, sampler: Sampler, times: Tensor, kept: Tensor) -> Tensor:
    """Images of which ``first`` walked the noise levels above each kept one and ``second`` the levels below: ``(T, N, C, H, W)``.

    The state is handed over at equal log-SNR: ``x_t / alpha`` is kept, and multiplied by the second model's alpha. The first of the kept
    levels gives the second model's own images, the last those of the first.

    Args:
        first: the course of the first model.
        second: the model that takes over.
        times: the second model's grid; kept: its indices that are kept, those of the course.
    """
    rows = [finished(second, y, first.images, sampler, times[k:]) for y, k in zip(first.y, kept.tolist(), strict=True)]
    return torch.stack(rows)


def noise_swapped(
    first: Course, second: Course, model: DiffusionModel, sampler: Sampler, times: Tensor, kept: Tensor
) -> Tensor:
    """Images of one model whose estimate comes from one trajectory and whose noise from another: ``(T, N, C, H, W)``.

    At a level ``s = sigma / alpha`` a state is ``y = x0 + s eps``, both as the model estimates them there. From trajectory 1 the estimate
    x0 is kept, eps is replaced by that of trajectory 2, and the model continues from

        y = x0_1 + (y_2 - x0_2)

    At the highest level, where an estimate is little more than the data mean, this is nearly trajectory 2; at t = 0 it is the image of 1.
    """
    return handed_over(first._replace(y=first.x0 + (second.y - second.x0)), model, sampler, times, kept)


def _steps(
    model: DiffusionModel, start: Tensor, sampler: Sampler, times: Tensor, images: Sequence[int]
) -> Iterator[SamplerStep]:
    return while_running(measuring, sample_path(model.denoiser, start, sampler, times=times, cond=model.labels(images)))


def nearness(mixed: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance of mixed images ``(T, N, ...)`` to the images ``(N, ...)`` of each side: two ``(T, N)``."""
    to_own, to_other = ((mixed - image).pow(2).flatten(2).mean(2).sqrt() for image in (own, other))
    return to_own, to_other
