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
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice, Registry
from consistency_lab.devices import sent
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, unknown_name

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


class Parametrisation(ABC):
    """What a network receives and what its output means. All tensors are ``(B, C, H, W)``; alpha and sigma broadcast to them."""

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
        scale = schedule.input_scale(alpha, sigma)
        return x_t if scale is None else x_t * scale

    @abstractmethod
    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction: ...


class Direct(Parametrisation):
    """The network's output is the estimate itself, in the units ``"eps"``, ``"x0"``, ``"v"``, ``"flow"`` or ``"score"``."""

    def __init__(self, units: str):
        self.units = units

    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        return Prediction.of(x_t, output, self.units, alpha, sigma)


class EDMPreconditioning(Parametrisation):
    """Karras et al. (2206.00364, table 1) for y = x_t / alpha and s = sigma / alpha, on any schedule:

        x0 = c_skip y + c_out F(c_in y),   c_skip = d^2 / (s^2 + d^2),   c_out = s d / sqrt(s^2 + d^2),   c_in = 1 / sqrt(s^2 + d^2)

    Args:
        sigma_data: d, the standard deviation of the data's pixels. Training measures it on its set where it is None.
    """

    def __init__(self, *, sigma_data: float | None = None):
        if sigma_data is None or not sigma_data > 0:
            raise UserError(
                f"edm preconditioning needs the data's standard deviation, above 0: write edm(sigma_data=0.5), not {sigma_data!r}."
            )
        self.sigma_data = sigma_data

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
        return x_t * torch.rsqrt(sigma**2 + (self.sigma_data * alpha) ** 2)

    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        d, power = self.sigma_data, sigma**2 + (self.sigma_data * alpha) ** 2
        x0 = d**2 * alpha / power * x_t + sigma * d * torch.rsqrt(power) * output
        # eps from its own formula: (x_t - alpha x0) / sigma would lose digits where sigma is small.
        eps = sigma / power * x_t - alpha * d * torch.rsqrt(power) * output
        return Prediction(x_t, alpha, sigma, x0, eps)


PREDICTIONS: Registry[Parametrisation] = Registry(
    "prediction", {**{units: partial(Direct, units) for units in _CONVERSIONS}, "edm": EDMPreconditioning}
)


class NoiseLevel(NamedTuple):
    """A time that has been checked, and what its schedule says there: of one or of ``(B,)`` states, and where these are."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor


class Denoiser(nn.Module, ABC):
    """Anything that estimates the clean image from a noisy one: trained, wrapped or in closed form. Subclasses write `predict`.

    Attributes:
        schedule: the noise schedule whose times and states it understands.
        shape: the image shape ``(C, H, W)``.
        origin: the pixel value, in [-1, 1], around which the noise lies that sampling starts from; another than 0 for a network
            whose own images are not centred at 0.
    """

    schedule: Schedule
    shape: tuple[int, int, int]
    origin: float = 0.0

    def forward(self, x_t: Tensor, t: Tensor | float | NoiseLevel, cond: Tensor | None = None) -> Prediction:
        """Estimate at ``x_t`` ``(B, C, H, W)`` and time ``t``, a float or ``(B,)`` in ``[t_min, t_max]``.

        A solver that visits many times asks its schedule about all of them at once, and gives each as a `NoiseLevel`.

        Raises:
            UserError: a state of another shape, or a time at which conversions are undefined.
        """
        return self.predict(x_t, *self.levels(t, x_t), cond)

    def levels(self, t: Tensor | float | NoiseLevel, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `predict` is told of the noise of states or images ``like`` ``(B, C, H, W)``: t, alpha and sigma.

        Where times are on the CPU the schedule is asked there, and a GPU that computes gets the answer in one copy: the few numbers of
        a batch would cost it as many operations as a layer.

        Raises:
            UserError: tensors of another shape, or a time at which conversions are undefined.
        """
        if tuple(like.shape[1:]) != tuple(self.shape):
            raise UserError(
                f"states of shape {tuple(like.shape[1:])} were given to a denoiser of {tuple(self.shape)} images."
            )
        if not isinstance(t, NoiseLevel):
            times = self.schedule.check(t).expand(len(like))
            t = NoiseLevel(times, *self.schedule.alpha_sigma(times))
            if times.device != like.device:
                t = NoiseLevel(*sent(torch.stack(t), like.device))
        times, alpha, sigma = (each.reshape(-1).expand(len(like)) for each in t)
        return times, per_sample(alpha, like), per_sample(sigma, like)

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        """The estimate at one noise level; what comes in has been checked.

        Args:
            x_t: the noisy states ``(B, C, H, W)``.
            t: their times ``(B,)``, float64.
            alpha, sigma: of the schedule at those times, ``(B, 1, 1, 1)`` in the dtype of ``x_t``.
            cond: class labels ``(B,)``, or None.

        Returns:
            ``Prediction.of(x_t, output, units, alpha, sigma)``.
        """


class NetworkDenoiser(Denoiser):
    """A network, a schedule, and what the network predicts.

    Args:
        network: ``(x, t, cond) -> x-shaped tensor``; it knows no schedule.
        schedule: the noise schedule.
        shape: the image shape ``(C, H, W)``.
        predicts: what the network's output means: ``"eps"``, ``"x0"``, ``"v"``, ``"flow"``, ``"score"`` or ``"edm(sigma_data=...)"``.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, shape: tuple[int, int, int], predicts: str | Choice = "eps"
    ):
        super().__init__()
        self.parametrisation = PREDICTIONS.build(predicts)
        self.network, self.schedule, self.shape, self.predicts = network, schedule, shape, str(predicts)

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        shown = self.parametrisation.network_input(x_t, alpha, sigma, self.schedule)
        output = self.network(shown, t.to(x_t.dtype), cond)
        # Under autocast the output is bfloat16: conversions divide by alpha and sigma and are done in the state's precision.
        return self.parametrisation.estimate(x_t, output.to(x_t.dtype), alpha, sigma)


class GuidedDenoiser(Denoiser):
    """Classifier-free guidance (Ho & Salimans 2207.12598, equation 6, in the form of scale 1 = the conditional model):

        eps = eps(no label) + scale (eps(label) - eps(no label))

    Each estimate costs two forward passes.

    Args:
        inner: a class-conditional denoiser that was trained with dropped labels.
        scale: 1 follows the label as trained, above 1 exaggerates it, 0 ignores it.
    """

    def __init__(self, inner: Denoiser, scale: float):
        super().__init__()
        self.inner, self.scale, self.origin = inner, scale, inner.origin
        self.schedule, self.shape = inner.schedule, inner.shape

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        if cond is None:
            raise UserError("a guided denoiser needs a label for every image.")
        level = NoiseLevel(t, alpha, sigma)
        free, bound = self.inner(x_t, level), self.inner(x_t, level, cond)
        return Prediction.of(x_t, free.eps + self.scale * (bound.eps - free.eps), "eps", alpha, sigma)
