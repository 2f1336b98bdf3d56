"""Alignment by log-SNR: the noise levels at which two models are compared, whatever t each schedule assigns to them.

An alignment depends on two schedules and on nothing else: exchanging them, or comparing their models together with others, changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

_HALVINGS = 80  # of a log-SNR interval of some tens: below the spacing of float64


class PairAlignment(NamedTuple):
    """Where two models are compared, from the noisiest level they share down to data: ``(steps + 1,)`` each, float64.

    Attributes:
        first, second: the times of either schedule, decreasing to 0.
        t: the time of the alignment, the mean of both times.
        log_snr: decreasing noise as increasing log-SNR; infinite at the end, which is data.
    """

    first: Tensor
    second: Tensor
    t: Tensor
    log_snr: Tensor


def align_pair(first: Schedule, second: Schedule, steps: int) -> PairAlignment:
    """The alignment of two schedules for a solver of so many steps.

    Equal schedules use their own grid. Others take equal steps of the mean of their two times over the range of log-SNR that they share:
    an alignment that either schedule shapes alike, and that is the schedule's own grid in the limit of equal schedules.

    Raises:
        UserError: the ranges of log-SNR do not overlap, or fewer than 1 step.
    """
    zero = torch.zeros(1, dtype=torch.float64, device="cpu")
    infinite = torch.full((1,), torch.inf, dtype=torch.float64, device="cpu")
    if first == second:
        grid = first.grid(steps)
        return PairAlignment(grid, grid, grid, torch.cat([first.log_snr(grid[:-1]), infinite]))
    if steps < 1:
        raise UserError(f"a sampler needs at least 1 step, not {steps}.")
    ranges = [schedule.log_snr_range for schedule in (first, second)]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if not low < high:
        spans = " and ".join(f"{a:.3g} to {b:.3g}" for a, b in ranges)
        raise UserError(
            f"the schedules {first.spec!r} and {second.spec!r} share no noise level: their log-SNR ranges are {spans}."
        )

    def mean_time(level: Tensor) -> Tensor:
        return (first.time_from_log_snr(level) + second.time_from_log_snr(level)) / 2

    ends = mean_time(torch.tensor([low, high], dtype=torch.float64, device="cpu"))
    t = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64, device="cpu")
    noisy, clean = torch.full_like(t, low), torch.full_like(t, high)
    for _ in range(_HALVINGS):  # the mean time falls strictly with log-SNR
        middle = (noisy + clean) / 2
        later = mean_time(middle) > t
        noisy, clean = torch.where(later, middle, noisy), torch.where(later, clean, middle)
    levels = (noisy + clean) / 2
    levels[0] = low  # exactly; the other end was rounded by halving, within the shared range
    one, other = (torch.cat([schedule.time_from_log_snr(levels), zero]) for schedule in (first, second))
    return PairAlignment(one, other, torch.cat([t, zero]), torch.cat([levels, infinite]))


def shared_axis(rows: Tensor) -> Tensor:
    """Times or levels of several alignments ``(alignments, T)`` as one axis ``(T,)``: those of all, or their mean where they differ."""
    return rows[0] if bool((rows == rows[0]).all()) else rows.mean(0)


def kept_points(steps: int, levels: int) -> Tensor:
    """Indices ``(levels,)`` of the points of a grid of ``steps`` steps that are kept: evenly spread, both ends among them."""
    return torch.linspace(0, steps, min(levels, steps + 1), dtype=torch.float32, device="cpu").round().long()


def passes_again(schedule: Schedule, steps: int) -> bool:
    """Whether twice the steps pass all times of a schedule's grid. EDM's do not: its times depend on how many there are."""
    return torch.allclose(schedule.grid(2 * steps)[::2], schedule.grid(steps), rtol=1e-9, atol=1e-12)
