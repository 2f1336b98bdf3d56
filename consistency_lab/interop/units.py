"""Models whose images do not lie in [-1, 1]: their own units inside, ours outside.

With pixels z in [lo, hi], half-width h = (hi - lo) / 2 and centre c = (hi + lo) / 2, the image here is y = (z - c) / h. Its state is

    w = a z + s eps = h (a y + (s / h) eps) + a c

so that what is x_t here has alpha = a and sigma = s / h, and is shown to the module as w = h x_t + a c. The noise eps is the same in both.
Where sampling starts, w is the noise s eps alone, as in the module's own sampler: x_t = (s / h) eps - a c / h.
"""

from __future__ import annotations

import math

from torch import Tensor

from consistency_lab.diffusion.parametrisation import Direct, Parametrisation
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.schedule import Schedule, Time
from consistency_lab.errors import UserError, short

Range = tuple[float, float]
OURS: Range = (-1.0, 1.0)


def check_value_range(value_range: object) -> Range:
    """``(lo, hi)`` as floats. Raises `UserError` unless lo < hi, both finite."""
    try:
        low, high = (float(x) for x in value_range)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"value_range={short(value_range)} is not usable; give (lo, hi), the values of black and white, for example (0, 1)."
        )
    return low, high


def half_and_centre(value_range: Range) -> tuple[float, float]:
    """Half the width of the range, and its middle."""
    low, high = value_range
    return (high - low) / 2, (high + low) / 2


def to_ours(pixels: Tensor, value_range: Range) -> Tensor:
    """Pixels of that range in [-1, 1]."""
    half, centre = half_and_centre(value_range)
    return pixels if value_range == OURS else (pixels - centre) / half


class InImageUnits(Schedule):
    """A schedule for data of half-width h, as it is for the same data in [-1, 1]: sigma is divided by h.

    Args:
        own: the schedule in the module's units.
        half: h.
    """

    def __init__(self, own: Schedule, half: float):
        self.own, self.half = own, half
        self.spec = f"{own.spec}, sigma / {half:g}"
        self.t_min, self.t_max = own.t_min, own.t_max

    def alpha(self, t: Time) -> Tensor:
        return self.own.alpha(t)

    def sigma(self, t: Time) -> Tensor:
        return self.own.sigma(t) / self.half

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.own._time_from_log_snr(log_snr - 2 * math.log(self.half))

    def grid(self, steps: int) -> Tensor:
        return self.own.grid(steps)


def in_image_units(own: Schedule, value_range: Range) -> Schedule:
    """The schedule of a module with that range of values, for images in [-1, 1]."""
    half, _ = half_and_centre(value_range)
    return own if half == 1 else InImageUnits(own, half)


class OwnUnits(Parametrisation):
    """What a module means, in its own units and sign, read in ours.

    Args:
        inner: the meaning of the module's output in its own units.
        own: its schedule, in its own units.
        value_range: of its images.
        sign: -1 for a module that gives the negative.
        rescaled: show it the state as our networks are shown it (rescaled on some schedules); else the state itself.
    """

    def __init__(self, inner: Parametrisation, own: Schedule, value_range: Range, sign: float, rescaled: bool):
        self.inner, self.own, self.sign = inner, own, sign
        self.as_it_is = isinstance(inner, Direct) and not rescaled
        self.half, self.centre = half_and_centre(value_range)

    def _state(self, x_t: Tensor, alpha: Tensor) -> Tensor:
        return self.half * x_t + self.centre * alpha

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
        state = self._state(x_t, alpha)
        return state if self.as_it_is else self.inner.network_input(state, alpha, self.half * sigma, self.own)

    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        found = self.inner.estimate(self._state(x_t, alpha), self.sign * output, alpha, self.half * sigma)
        return Prediction(x_t, alpha, sigma, (found.x0 - self.centre) / self.half, found.eps)
