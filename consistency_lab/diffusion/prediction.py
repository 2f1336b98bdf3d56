"""An estimate at one noise level, in every unit.

For one noisy state x_t = alpha x0 + sigma eps, an estimate in any of these units fixes all the others:

    eps    the noise                          x0     the clean image
    v      alpha eps - sigma x0               flow   eps - x0
    score  -eps / sigma

(v: Salimans & Ho 2202.00512, section 4 and appendix D, extended to schedules with alpha^2 + sigma^2 != 1; flow: Lipman et al. 2210.02747.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from consistency_lab.errors import unknown_name

UNITS = ("eps", "x0", "v", "flow")


@dataclass(frozen=True)
class Prediction:
    """One estimate at one noise level, in every unit; made by `of`.

    Attributes:
        x_t: the noisy state ``alpha x0 + sigma eps``, ``(B, C, H, W)``.
        alpha, sigma: of the noise level; they broadcast to the state.
        x0, eps: the clean image and the noise, as they are estimated.
    """

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    eps: Tensor

    @classmethod
    def of(cls, x_t: Tensor, output: Tensor, units: str, alpha: Tensor, sigma: Tensor) -> Prediction:
        """From an estimate in one of the units.

        Args:
            x_t: the noisy state ``(B, C, H, W)``.
            output: the estimate, shaped as the state.
            units: ``"eps"``, ``"x0"``, ``"v"``, ``"flow"`` or ``"score"``.
            alpha, sigma: of the noise level; they broadcast to the state.

        Raises:
            UserError: unknown units.
        """
        if units not in _CONVERSIONS:
            raise unknown_name("prediction", units, _CONVERSIONS)
        x0, eps = _CONVERSIONS[units](x_t, output, alpha, sigma)
        return cls(x_t, alpha, sigma, x0, eps)

    @property
    def v(self) -> Tensor:
        """``alpha eps - sigma x0``."""
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def flow(self) -> Tensor:
        """``eps - x0``."""
        return self.eps - self.x0

    @property
    def score(self) -> Tensor:
        """``-eps / sigma``."""
        return -self.eps / self.sigma

    def in_units(self, units: str) -> Tensor:
        """The estimate in ``"eps"``, ``"x0"``, ``"v"``, ``"flow"`` or ``"score"``. Raises `UserError` for anything else."""
        if units not in _CONVERSIONS:
            raise unknown_name("prediction", units, _CONVERSIONS)
        return getattr(self, units)


def _from_eps(x: Tensor, out: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return (x - sigma * out) / alpha, out


def _from_x0(x: Tensor, out: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return out, (x - alpha * out) / sigma


def _from_v(x: Tensor, out: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    power = alpha**2 + sigma**2
    return (alpha * x - sigma * out) / power, (sigma * x + alpha * out) / power


def _from_flow(x: Tensor, out: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return (x - sigma * out) / (alpha + sigma), (x + alpha * out) / (alpha + sigma)


def _from_score(x: Tensor, out: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return (x + sigma**2 * out) / alpha, -sigma * out


# From a network's output in some units to (x0, eps).
_CONVERSIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": _from_eps,
    "x0": _from_x0,
    "v": _from_v,
    "flow": _from_flow,
    "score": _from_score,
}


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` or scalar values in the dtype and on the device of ``like``, shaped to multiply ``like`` ``(B, C, H, W)``."""
    values = values.to(device=like.device, dtype=like.dtype)
    return values.reshape(-1, *[1] * (like.dim() - 1))
