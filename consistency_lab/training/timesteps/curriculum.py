"""The paper's curriculum over timesteps."""

from __future__ import annotations

from typing import Any

import numpy as np

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps.base import BINS, TimestepSampler, noise_rate

AXES = ("timestep", "noise_rate")


class CLTS(TimestepSampler):
    """The paper's curriculum over timesteps (CLTS): from uniform to a Gaussian around the hard timesteps (2404.07946, section 4.2).

        pi_i(t) = (1 - lambda_i) U(t) + lambda_i N(t; center, width^2),    lambda_i = min(i / horizon, 1 - floor)

    The Gaussian is truncated to ``[t_min, t_max]`` and normalised there. The paper does not publish the width; it is an option here
    and goes into every record. No importance weights unless asked for: the curriculum changes the objective, as in the paper.

    Args:
        center: mean of the Gaussian; the paper's ablation favours 0.3.
        width: its standard deviation.
        horizon: when the mixture stops changing, as a fraction of the run.
        floor: uniform share that always remains, so that lambda never exceeds 1 - floor.
        axis: what center and width are measured on: ``"timestep"``, t itself, or ``"noise_rate"``, sigma / sqrt(alpha^2 + sigma^2):
            a time then has the Gaussian of its noise rate as weight (the abstract calls the noise rate the indicator of difficulty).
        weighted: importance weights (see `TimestepSampler`).

    Raises:
        UserError: a width or horizon of 0 or less, a floor outside [0, 1] (lambda above 1), or another axis.
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
        axis: str = "timestep",
        weighted: bool = False,
    ):
        if width <= 0 or horizon <= 0:
            raise UserError(f"clts needs a width and a horizon above 0, not width={width!r}, horizon={horizon!r}.")
        if not 0 <= floor <= 1:
            raise UserError(
                f"the uniform floor of clts lies in [0, 1], not {floor!r}: lambda, at most 1 - floor, is a share."
            )
        if axis not in AXES:
            raise UserError(f"the axis of clts is {' or '.join(AXES)}, not {axis!r}.")
        super().__init__(schedule, total_steps, floor, weighted)
        self.horizon = horizon * total_steps
        place = self.centres if axis == "timestep" else noise_rate(schedule, self.centres)
        gaussian = np.exp(-0.5 * ((place - center) / width) ** 2)
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
