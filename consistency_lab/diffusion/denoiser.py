"""Denoisers: whatever a network predicts, everything that can be asked of it at a noise level.

For one noisy state x_t = alpha x0 + sigma eps, an estimate in any of these units fixes all the others:

    eps    the noise                          x0     the clean image
    v      alpha eps - sigma x0               flow   eps - x0
    score  -eps / sigma

(v: Salimans & Ho 2202.00512, section 4 and appendix D, extended to schedules with alpha^2 + sigma^2 != 1; flow: Lipman et al. 2210.02747.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, unknown_name

UNITS = ("eps", "x0", "v", "flow")


@dataclass(frozen=True)
class Prediction:
    """One estimate at one noise level, in every unit. All tensors are ``(B, C, H, W)``; alpha and sigma broadcast to them."""

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    eps: Tensor

    @property
    def v(self) -> Tensor:
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def flow(self) -> Tensor:
        return self.eps - self.x0

    @property
    def score(self) -> Tensor:
        return -self.eps / self.sigma

    def in_units(self, units: str) -> Tensor:
        """The estimate in ``"eps"``, ``"x0"``, ``"v"`` or ``"flow"``. Raises `UserError` for anything else."""
        if units not in UNITS:
            raise unknown_name("prediction", units, UNITS)
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


# From a network's output in some units to (x0, eps).
_CONVERSIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": _from_eps,
    "x0": _from_x0,
    "v": _from_v,
    "flow": _from_flow,
}


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` or scalar values in the dtype and on the device of ``like``, shaped to multiply ``like`` ``(B, C, H, W)``."""
    values = values.to(device=like.device, dtype=like.dtype)
    return values.reshape(-1, *[1] * (like.dim() - 1))


def convert(x_t: Tensor, output: Tensor, units: str, alpha: Tensor, sigma: Tensor) -> Prediction:
    """An estimate given in ``units``, in every unit. Raises `UserError` for unknown units."""
    if units not in _CONVERSIONS:
        raise unknown_name("prediction", units, _CONVERSIONS)
    x0, eps = _CONVERSIONS[units](x_t, output, alpha, sigma)
    return Prediction(x_t, alpha, sigma, x0, eps)


class Denoiser(nn.Module, ABC):
    """Anything that estimates the clean image from a noisy one: trained, borrowed or in closed form.

    Attributes:
        schedule: the noise schedule whose times and states it understands.
        shape: the image shape ``(C, H, W)``.
    """

    schedule: Schedule
    shape: tuple[int, int, int]

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Prediction:
        """Estimate at ``x_t`` ``(B, C, H, W)`` and time ``t``, a float or ``(B,)`` in ``[t_min, t_max]``.

        Raises:
            UserError: a state of another shape, or a time at which conversions are undefined.
        """
        if tuple(x_t.shape[1:]) != tuple(self.shape):
            raise UserError(f"states of shape {tuple(x_t.shape[1:])} were given to a denoiser of {tuple(self.shape)} images.")
        times = self.schedule.check(t).to(x_t.device).expand(len(x_t))
        alpha, sigma = per_sample(self.schedule.alpha(times), x_t), per_sample(self.schedule.sigma(times), x_t)
        return self._predict(x_t, times, alpha, sigma, cond)

    @abstractmethod
    def _predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        """``t`` is ``(B,)`` float64; alpha and sigma broadcast to ``x_t``."""


class NetworkDenoiser(Denoiser):
    """A network, a schedule, and what the network predicts.

    Args:
        network: ``(x, t, cond) -> x-shaped tensor``; it knows no schedule.
        schedule: the noise schedule.
        shape: the image shape ``(C, H, W)``.
        predicts: the units of the network's output: ``"eps"``, ``"x0"``, ``"v"`` or ``"flow"``.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, shape: tuple[int, int, int], predicts: str = "eps"):
        super().__init__()
        if predicts not in _CONVERSIONS:
            raise unknown_name("prediction", predicts, _CONVERSIONS)
        self.network, self.schedule, self.shape, self.predicts = network, schedule, shape, predicts

    def _predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        output = self.network(x_t, t.to(x_t.dtype), cond)
        # Under autocast the output is bfloat16: conversions divide by alpha and sigma and are done in the state's precision.
        return convert(x_t, output.to(x_t.dtype), self.predicts, alpha, sigma)
