"""What every timestep sampler is: a density over t, drawn from exactly.

Every density here is piecewise constant on `BINS` equal cells of ``[t_min, t_max]`` (for the paper's 1000 steps: one cell a timestep),
so that what is drawn is exactly what ``pdf`` says, and one ``sample`` serves them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

BINS = 1000
LEAST_FLOOR = 0.01
"""Importance weights are refused below this uniform share: it bounds them by 1 / floor."""
SUM_TOLERANCE = 1e-6
"""How far a sum of masses may be from 1: more than rounding makes of it, also in float32."""


class TimestepSampler:
    """Base: a density over t, changing with the step.

    Args:
        schedule: gives ``[t_min, t_max]``.
        total_steps: length of the run.
        floor: uniform share that the density never falls below.
        weighted: give each draw the weight (uniform density / density), so that the weighted loss is the uniform one in expectation.
            Without, the density changes the objective, as a curriculum means to.

    Raises:
        UserError: a floor outside [0, 1], or weights with a floor below `LEAST_FLOOR`.
    """

    lost = 0.0
    """Share of the mass of a density on all of its axis that fell outside ``[t_min, t_max]``, before it was normalised there."""

    def __init__(self, schedule: Schedule, total_steps: int, floor: float = 0.0, weighted: bool = False):
        if not 0 <= floor <= 1:
            raise UserError(f"the uniform floor of timesteps lies in [0, 1], not {floor!r}.")
        if weighted and floor < LEAST_FLOOR:
            raise UserError(
                f"importance weights need a uniform floor of at least {LEAST_FLOOR:g} (they are unbounded without), not {floor!r}."
            )
        self.schedule, self.low, self.high, self.total_steps = schedule, schedule.t_min, schedule.t_max, total_steps
        self.floor, self.weighted = floor, weighted
        self._cumulative: tuple[Any, Tensor, Tensor] | None = None

    @property
    def centres(self) -> np.ndarray:
        """Centres of the cells, ``(BINS,)``, in t."""
        return self.low + (np.arange(BINS) + 0.5) / BINS * (self.high - self.low)

    @property
    def edges(self) -> np.ndarray:
        """Bounds of the cells, ``(BINS + 1,)``, in t."""
        return np.append(self.low + np.arange(BINS) / BINS * (self.high - self.low), self.high)

    def masses(self, step: int) -> np.ndarray:
        """Probability of each cell at a step, ``(BINS,)``, summing to 1. Defined for every step, also beyond ``total_steps``."""
        raise NotImplementedError

    def checked_masses(self, step: int) -> np.ndarray:
        """What `masses` says, float64. Everything that reads or draws from a density gets it here.

        Raises:
            UserError: it is no density: another shape, negative, not finite, a sum that is off 1 by more than `SUM_TOLERANCE`; or it falls
                below the floor by which importance weights are bounded.
        """
        name = type(self).__name__
        try:
            masses = np.asarray(self.masses(step), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"the masses of the sampler {name} are not numbers ({error}); return an array.") from None
        if masses.shape != (BINS,):
            raise UserError(
                f"the masses of the sampler {name} have the shape {masses.shape}; give one for each of {BINS} cells."
            )
        if wrong := int((~(np.isfinite(masses) & (masses >= 0))).sum()):
            raise UserError(
                f"{wrong} of the {BINS} masses of the sampler {name} are negative or not finite at step {step}; probabilities are neither."
            )
        if abs(total := float(masses.sum()) - 1.0) > SUM_TOLERANCE:
            raise UserError(
                f"the masses of the sampler {name} sum to {total + 1.0:.6g} at step {step} and not to 1; divide them by their sum."
            )
        if self.weighted and masses.min() < self.floor / BINS * (1 - SUM_TOLERANCE):
            raise UserError(
                f"the lowest mass of the sampler {name} is {masses.min():.3g} at step {step}, below its floor of {self.floor:g} / {BINS}, "
                "which bounds the importance weights; mix in that uniform share."
            )
        return masses

    def _key(self, step: int) -> Any:
        """Equal keys mean equal masses; the cumulative sum is kept while the key stays."""
        return step

    def pdf(self, t: Tensor | np.ndarray, step: int) -> np.ndarray:
        """Density at times ``t`` (any shape); zero outside ``[t_min, t_max]``."""
        position = (np.asarray(t, dtype=np.float64) - self.low) / (self.high - self.low) * BINS
        inside = (position >= 0) & (position <= BINS)
        cell = np.clip(position.astype(np.int64), 0, BINS - 1)
        return np.where(inside, self.checked_masses(step)[cell] * BINS / (self.high - self.low), 0.0)

    def sample(self, n: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw times for a batch.

        Args:
            n: how many.
            step: 0-based step of the run.
            generator: a CPU generator; two uniform numbers a time are taken from it.

        Returns:
            ``t`` ``(n,)`` float64 and the weight of each sample in the loss ``(n,)`` float64: 1, or the importance weight.
        """
        key = self._key(step)
        if self._cumulative is None or self._cumulative[0] != key:
            masses = self.checked_masses(step)
            self._cumulative = (key, torch.from_numpy(masses), torch.from_numpy(np.cumsum(masses)))
        _, known, cumulative = self._cumulative
        cell, inside = self._draw(n, cumulative, generator)
        t = self.low + (cell + inside) / BINS * (self.high - self.low)
        return t, 1.0 / (BINS * known[cell]) if self.weighted else torch.ones_like(t)

    def _draw(self, n: int, cumulative: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cells ``(n,)`` and places within them ``(n,)`` in [0, 1)."""
        place, inside = torch.rand(2, n, dtype=torch.float64, device="cpu", generator=generator)
        return self._cell(place, cumulative), inside

    @staticmethod
    def _cell(place: Tensor, cumulative: Tensor) -> Tensor:
        # Rounding may leave the last sum just below 1 or past empty cells: scale to it, so that no empty cell is drawn.
        return torch.searchsorted(cumulative, place * cumulative[-1], right=True).clamp_max(BINS - 1)

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses ``(n,)`` at times ``(n,)``; samplers that do not adapt ignore them."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Samplers whose density follows from the step alone have no state."""


def check_draws(sampler: TimestepSampler, t: object, weight: object, n: int) -> None:
    """Raise `UserError` unless a sampler has drawn ``n`` times within ``[t_min, t_max]`` and weights that can be weights."""
    name = type(sampler).__name__
    for what, values in (("times", t), ("weights", weight)):
        if not isinstance(values, Tensor) or values.shape != (n,):
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UserError(f"the {what} of the sampler {name} must be a tensor of shape ({n},), not {given}.")
    assert isinstance(t, Tensor)
    assert isinstance(weight, Tensor)
    slack = 1e-6  # float32
    if not bool(((t >= sampler.low - slack) & (t <= sampler.high + slack)).all()):
        raise UserError(
            f"the sampler {name} drew times from {float(t.min()):.6g} to {float(t.max()):.6g}; they must lie in "
            f"[{sampler.low:g}, {sampler.high:g}]."
        )
    check_weights(f"the sampler {name}", weight)


def check_weights(what: str, weight: Tensor) -> None:
    """Raise `UserError` for weights of a loss that are negative or not finite."""
    if wrong := int((~(weight.isfinite() & (weight >= 0))).sum()):
        raise UserError(
            f"{what} gave {wrong} of {weight.numel()} samples a weight that is negative or not finite; a weight is 0 or more."
        )


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of absolute differences of two sets of masses: 0 for equal, 1 for disjoint."""
    return float(0.5 * np.abs(p - q).sum())


def effective_share(masses: np.ndarray) -> float:
    """Share of draws that a batch from these masses is worth when it is weighted back to the uniform density: 1 / E_p[(u / p)^2].

    1 for the uniform density; 0 where some cell is never drawn, since no weight makes up for that.
    """
    return 0.0 if (masses <= 0).any() else float(1.0 / (1.0 / (len(masses) ** 2 * masses)).sum())


def noise_rate(schedule: Schedule, t: np.ndarray) -> np.ndarray:
    """sigma / sqrt(alpha^2 + sigma^2) in [0, 1]: for a variance-preserving schedule sqrt(1 - alpha-bar)."""
    times = torch.from_numpy(t)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    return (sigma / torch.sqrt(alpha**2 + sigma**2)).numpy()


def positive(name: str, **values: float) -> None:
    """Refuse options that are not above 0, by name."""
    for key, value in values.items():
        if not value > 0:
            raise UserError(f"{name} needs {key} above 0, not {value!r}.")
