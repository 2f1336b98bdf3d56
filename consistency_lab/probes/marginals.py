"""How fast the distribution of noisy images changes along t, in closed form for Gaussian data; and the information that t takes away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.intervals import Array

STEP = 1e-3  # one step of a schedule of 1000


def _around(schedule: Schedule, times: Tensor) -> tuple[Tensor, Tensor]:
    """Times `STEP` apart around each time, within the schedule's range."""
    before = (times.double() - STEP / 2).clamp(schedule.t_min, schedule.t_max - STEP)
    return before, before + STEP


def log_snr_rate(schedule: Schedule, times: Tensor) -> Tensor:
    """``-d log-SNR / dt`` at each time, above 0, float64: a difference over `STEP`."""
    before, after = _around(schedule, times)
    return (schedule.log_snr(before) - schedule.log_snr(after)) / STEP


def gaussian_kl_rate(mean: Tensor, covariance: Tensor, schedule: Schedule, times: Tensor) -> Array:
    """``KL(p_t || p_{t + dt}) / dt^2`` of the noisy images if the data were Gaussian: ``(T,)``, nats per squared unit of t.

    The divergence of neighbours is of second order in dt (half the Fisher information of t, times dt^2), so that it is divided by dt^2.
    dt is 1/1000 here: times 1e-6 this is the KL between consecutive steps of a 1000-step model, by which 2403.10348 measures how hard a
    step is. Each marginal is ``N(alpha mean, alpha^2 covariance + sigma^2 I)``.

    Args:
        mean: ``(D,)``; covariance: ``(D, D)``.
        schedule: the noise schedule.
        times: ``(T,)``.
    """
    variances, axes = torch.linalg.eigh(covariance.double())
    variances, centre = variances.clamp_min(0.0), mean.double() @ axes
    before, after = _around(schedule, times)
    spread = [schedule.alpha(t)[:, None] ** 2 * variances + schedule.sigma(t)[:, None] ** 2 for t in (before, after)]
    shift = (schedule.alpha(before) - schedule.alpha(after))[:, None] * centre
    excess = (spread[0] - spread[1]) / spread[1]  # ratio of variances - 1; log1p keeps the digits of small ones
    kl = 0.5 * (excess - torch.log1p(excess) + shift**2 / spread[1]).sum(1)
    return (kl / STEP**2).numpy()


def gaussian_kl_rates(images: Tensor, schedule: Schedule, times: Tensor, groups: int) -> tuple[Array, Array]:
    """`gaussian_kl_rate` of the distribution that images ``(N, C, H, W)`` come from: ``(T,)``, and ``(groups, T)`` with a group left out.

    The mean and covariance of few images make the rate too high: small variances come out smaller, means further from 0. The jackknife's
    estimate of that bias (Quenouille 1956) is taken off, from the replicates too.
    """
    flat = images.double().flatten(1).cpu()
    origin = flat.mean(0)
    flat = flat - origin
    square, total = flat.T @ flat, flat.sum(0)

    def rate(count: int, first: Tensor, second: Tensor) -> Array:
        mean = first / count
        return gaussian_kl_rate(origin + mean, second / count - torch.outer(mean, mean), schedule, times)

    without = []
    for g in range(groups):
        part = flat[g::groups]
        left = len(flat) - len(part)
        nothing = np.full(len(times), np.nan)
        without.append(rate(left, total - part.sum(0), square - part.T @ part) if left > 1 else nothing)
    plain, replicates = rate(len(flat), total, square), np.stack(without)
    bias = (groups - 1) * (replicates.mean(0) - plain) if groups > 1 else np.zeros_like(plain)
    return plain - bias, replicates - bias
