"""Densities over t that stay the same for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps.base import BINS, TimestepSampler, positive


class Uniform(TimestepSampler):
    """Every time equally often, as in DDPM."""

    def masses(self, step: int) -> np.ndarray:
        return np.full(BINS, 1.0 / BINS)

    def _key(self, step: int) -> Any:
        return None


class StratifiedUniform(Uniform):
    """Uniform, with exactly one draw of a batch of n in each of n equal strata: draw i lies in stratum i.

    Images come in shuffled order, so a place in the batch says nothing about the image. The loss of a batch has the same expectation as
    with independent times and a lower variance (Kingma et al. 2107.00630, appendix I.1, share one offset; here each stratum has its own).
    """

    def _draw(self, n: int, cumulative: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        place = (
            (torch.arange(n, device="cpu") + torch.rand(n, dtype=torch.float64, device="cpu", generator=generator))
            / n
            * BINS
        )
        cell = place.long().clamp_max(BINS - 1)
        return cell, place - cell


class FixedDensity(TimestepSampler):
    """Masses that are known when the sampler is made."""

    def __init__(
        self, schedule: Schedule, total_steps: int, shape: np.ndarray, floor: float = 0.0, weighted: bool = False
    ):
        super().__init__(schedule, total_steps, floor, weighted)
        self._masses = floor / BINS + (1 - floor) * shape / shape.sum()

    def masses(self, step: int) -> np.ndarray:
        return self._masses

    def _key(self, step: int) -> Any:
        return None


class Density(FixedDensity):
    """A density fitted to values at equally spaced times from t_min to t_max, linear between them. Recipes are written in it.

    Args:
        values: non-negative, at least two; they need not be normalised.
        floor: uniform share.
        weighted: importance weights (see `TimestepSampler`).

    Raises:
        UserError: negative, non-finite or all-zero values, or a floor outside [0, 1].
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        values: Sequence[float],
        floor: float = 0.0,
        weighted: bool = False,
    ):
        try:
            knots = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"the values of a density over t are a list of numbers, not {values!r}.") from None
        finite = knots.ndim == 1 and len(knots) >= 2 and bool(np.isfinite(knots).all())
        if not finite or (knots < 0).any() or not knots.sum() > 0:
            raise UserError("a density over t needs at least two values, finite, none negative and not all zero.")
        shape = np.interp((np.arange(BINS) + 0.5) / BINS, np.linspace(0, 1, len(knots)), knots)
        super().__init__(schedule, total_steps, shape, floor, weighted)


class _Truncated(FixedDensity):
    """A distribution given by its cumulative function of t, cut to ``[t_min, t_max]`` and normalised there; `lost` is what was cut.

    Cells get differences of the cumulative function, so a change of variables needs no Jacobian and a pole at an end no care.
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        cumulative: Callable[[np.ndarray], np.ndarray],
        floor: float,
        weighted: bool,
        name: str,
    ):
        self.schedule, self.low, self.high = schedule, schedule.t_min, schedule.t_max
        shape = np.diff(cumulative(self.edges)).clip(min=0.0)
        self.lost = float(max(0.0, 1.0 - shape.sum()))
        if not shape.sum() > 1e-6:
            raise UserError(
                f"{name} has (next to) no mass in [{self.low:g}, {self.high:g}] of the schedule {schedule.spec!r}; move it there."
            )
        super().__init__(schedule, total_steps, shape, floor, weighted)


class Beta(_Truncated):
    """Beta-tuned timesteps, t ~ Beta(a, b) (Zheng et al., ECCV 2024). a < b puts the mass at small t.

    The published a and b are not known to us, so both must be given. Mass is lost only where t_min and t_max leave out ends of [0, 1].
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        a: float,
        b: float,
        floor: float = 0.0,
        weighted: bool = False,
    ):
        positive("beta", a=a, b=b)
        super().__init__(schedule, total_steps, lambda t: stats.beta.cdf(t, a, b), floor, weighted, "beta")


class LogitNormal(_Truncated):
    """t = sigmoid(N(mean, width^2)), as Stable Diffusion 3 trains its flow (Esser et al. 2403.03206, section 3.1)."""

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        mean: float = 0.0,
        width: float = 1.0,
        floor: float = 0.0,
        weighted: bool = False,
    ):
        positive("logit_normal", width=width)

        def cumulative(t: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore"):  # the logit of 0 and 1 is infinite, and so it should be
                return stats.norm.cdf((np.log(t) - np.log1p(-t) - mean) / width)

        super().__init__(schedule, total_steps, cumulative, floor, weighted, "logit_normal")


class EDMLogNormal(_Truncated):
    """EDM's training noise, ln(sigma / alpha) ~ N(mean, width^2) (Karras et al. 2206.00364, table 1), on any schedule.

    What the schedule cannot reach is cut off and reported as `lost`. EDM's values belong to images in [-1, 1] with a standard deviation of
    one half.
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        mean: float = -1.2,
        width: float = 1.2,
        floor: float = 0.0,
        weighted: bool = False,
    ):
        positive("edm_lognormal", width=width)

        def cumulative(t: np.ndarray) -> np.ndarray:
            log_s = torch.log(schedule.noise_to_signal(torch.from_numpy(t))).numpy()
            return stats.norm.cdf((log_s - mean) / width)

        super().__init__(schedule, total_steps, cumulative, floor, weighted, "edm_lognormal")
