"""Which times are trained, and how often.

A sampler is a density over t that may change with the step. Every density here is piecewise constant on `BINS` equal cells of
``[t_min, t_max]`` (for the paper's 1000 steps: one cell a timestep), so that what is drawn is exactly what ``pdf`` says, and one
``sample`` serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

BINS = 1000


class TimestepSampler:
    """Base: a density over t, changing with the step.

    Args:
        schedule: gives ``[t_min, t_max]``.
        total_steps: length of the run.
    """

    def __init__(self, schedule: Schedule, total_steps: int):
        self.low, self.high, self.total_steps = schedule.t_min, schedule.t_max, total_steps
        self._cumulative: tuple[Any, Tensor] | None = None

    @property
    def centres(self) -> np.ndarray:
        """Centres of the cells, ``(BINS,)``, in t."""
        return self.low + (np.arange(BINS) + 0.5) / BINS * (self.high - self.low)

    def masses(self, step: int) -> np.ndarray:
        """Probability of each cell at a step, ``(BINS,)``, summing to 1. Defined for every step, also beyond ``total_steps``."""
        raise NotImplementedError

    def _key(self, step: int) -> Any:
        """Equal keys mean equal masses; the cumulative sum is kept while the key stays."""
        return step

    def pdf(self, t: Tensor | np.ndarray, step: int) -> np.ndarray:
        """Density at times ``t`` (any shape); zero outside ``[t_min, t_max]``."""
        position = (np.asarray(t, dtype=np.float64) - self.low) / (self.high - self.low) * BINS
        inside = (position >= 0) & (position <= BINS)
        cell = np.clip(position.astype(np.int64), 0, BINS - 1)
        return np.where(inside, self.masses(step)[cell] * BINS / (self.high - self.low), 0.0)

    def sample(self, n: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw times for a batch.

        Args:
            n: how many.
            step: 0-based step of the run.
            generator: a CPU generator; two uniform numbers a time are taken from it.

        Returns:
            ``t`` ``(n,)`` float64 and the weight of each sample in the loss ``(n,)`` float64 (1: a curriculum changes the objective).
        """
        key = self._key(step)
        if self._cumulative is None or self._cumulative[0] != key:
            self._cumulative = (key, torch.from_numpy(np.cumsum(self.masses(step))))
        cumulative = self._cumulative[1]
        place, inside = torch.rand(2, n, dtype=torch.float64, generator=generator)
        # Rounding may leave the last sum just below 1 or past empty cells: scale to it, so that no empty cell is drawn.
        cell = torch.searchsorted(cumulative, place * cumulative[-1], right=True).clamp_max(BINS - 1)
        t = self.low + (cell + inside) / BINS * (self.high - self.low)
        return t, torch.ones_like(t)

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses ``(n,)`` at times ``(n,)``; samplers that do not adapt ignore them."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Samplers whose density follows from the step alone have no state."""


class Uniform(TimestepSampler):
    """Every time equally often, as in DDPM."""

    def masses(self, step: int) -> np.ndarray:
        return np.full(BINS, 1.0 / BINS)

    def _key(self, step: int) -> Any:
        return None


class CLTS(TimestepSampler):
    """The paper's curriculum: from uniform to a Gaussian around the timesteps that are hard (2404.07946, section 4.2).

        pi_i(t) = (1 - lambda_i) U(t) + lambda_i N(t; center, width^2),    lambda_i = min(i / horizon, 1 - floor)

    The Gaussian is truncated to ``[t_min, t_max]`` and normalised there. The paper does not publish the width; it is an option here
    and goes into every record. No importance weights: the curriculum changes the objective, as in the paper.

    Args:
        center: mean of the Gaussian in t; the paper's ablation favours 0.3.
        width: its standard deviation in t.
        horizon: when the mixture stops changing, as a fraction of the run.
        floor: uniform share that always remains.

    Raises:
        UserError: a width or horizon of 0 or less, or a floor outside [0, 1].
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        center: float = 0.3,
        width: float = 0.2,
        horizon: float = 1.0,
        floor: float = 0.05,
    ):
        super().__init__(schedule, total_steps)
        if width <= 0 or horizon <= 0:
            raise UserError(f"clts needs a width and a horizon above 0, not width={width!r}, horizon={horizon!r}.")
        if not 0 <= floor <= 1:
            raise UserError(f"the uniform floor of clts lies in [0, 1], not {floor!r}.")
        self.horizon, self.floor = horizon * total_steps, floor
        gaussian = np.exp(-0.5 * ((self.centres - center) / width) ** 2)
        if not gaussian.sum() > 0:
            raise UserError(
                f"the Gaussian of clts at center={center!r} with width={width!r} has no mass in [{self.low:g}, {self.high:g}]."
            )
        self.gaussian = gaussian / gaussian.sum()

    def share(self, step: int) -> float:
        """lambda at a step."""
        return min(step / self.horizon, 1.0 - self.floor)

    def masses(self, step: int) -> np.ndarray:
        share = self.share(step)
        return (1.0 - share) / BINS + share * self.gaussian

    def _key(self, step: int) -> Any:
        return self.share(step)


class Density(TimestepSampler):
    """A fixed density, given by its values at equally spaced times from t_min to t_max and linear between them.

    Args:
        values: non-negative, at least two; they need not be normalised.
        floor: uniform share.

    Raises:
        UserError: negative, non-finite or all-zero values, or a floor outside [0, 1].
    """

    def __init__(self, schedule: Schedule, total_steps: int, *, values: Sequence[float], floor: float = 0.0):
        super().__init__(schedule, total_steps)
        knots = np.asarray(values, dtype=np.float64)
        if (
            knots.ndim != 1
            or len(knots) < 2
            or not np.isfinite(knots).all()
            or (knots < 0).any()
            or not knots.sum() > 0
        ):
            raise UserError("a density over t needs at least two values, finite, none negative and not all zero.")
        if not 0 <= floor <= 1:
            raise UserError(f"the uniform floor of a density lies in [0, 1], not {floor!r}.")
        shape = np.interp((np.arange(BINS) + 0.5) / BINS, np.linspace(0, 1, len(knots)), knots)
        self._masses = floor / BINS + (1 - floor) * shape / shape.sum()

    def masses(self, step: int) -> np.ndarray:
        return self._masses

    def _key(self, step: int) -> Any:
        return None


TIMESTEPS: Registry[TimestepSampler] = Registry(
    "timestep sampler", {"uniform": Uniform, "clts": CLTS, "density": Density}
)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of absolute differences of two sets of masses: 0 for equal, 1 for disjoint."""
    return float(0.5 * np.abs(p - q).sum())
