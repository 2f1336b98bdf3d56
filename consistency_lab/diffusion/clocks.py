"""One clock for samplers of several denoisers: they meet at equal log-SNR, whatever time each calls it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.errors import UserError


def common_times(denoisers: Sequence[Denoiser], steps: int, levels: int) -> tuple[list[Tensor], Tensor]:
    """Grids of ``steps`` solver steps at which all denoisers are at the same log-SNR.

    Equal schedules use their own grid. Others take equal steps of the first one's time over the log-SNR range that all share.

    Returns:
        one grid ``(steps + 1,)`` per denoiser, decreasing to 0, and the indices ``(levels,)`` of the grid points that are kept.

    Raises:
        UserError: the ranges of log-SNR do not overlap.
    """
    first = denoisers[0].schedule
    kept = kept_points(steps, levels)
    if all(denoiser.schedule == first for denoiser in denoisers):
        return [first.grid(steps)] * len(denoisers), kept
    ranges = [denoiser.schedule.log_snr_range for denoiser in denoisers]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if not low < high:
        spans = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in ranges)
        raise UserError(f"the schedules share no noise level: their log-SNR ranges are {spans}.")
    ends = first.time_from_log_snr(torch.tensor([low, high], dtype=torch.float64, device="cpu"))
    clock = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64, device="cpu")
    shared = first.log_snr(clock).clamp(low, high)
    zero = torch.zeros(1, dtype=torch.float64, device="cpu")
    return [torch.cat([d.schedule.time_from_log_snr(shared), zero]) for d in denoisers], kept


def kept_points(steps: int, levels: int) -> Tensor:
    """Indices ``(levels,)`` of the points of a grid of ``steps`` steps that are kept: evenly spread, both ends among them."""
    return torch.linspace(0, steps, min(levels, steps + 1), dtype=torch.float32, device="cpu").round().long()
