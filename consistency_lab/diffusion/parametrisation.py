"""What a network receives, and what its output means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from consistency_lab.choices import Registry, require_positive
from consistency_lab.diffusion.moments import WithMoments
from consistency_lab.diffusion.prediction import UNITS, Prediction
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError


class Parametrisation(ABC):
    """What a network receives and what its output means. All tensors are ``(B, C, H, W)``; alpha and sigma broadcast to them."""

    stack = 1
    """Images that the network is shown and answers with at once, one after another along its channels."""

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
        scale = schedule.input_scale(alpha, sigma)
        return x_t if scale is None else x_t * scale

    @abstractmethod
    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction: ...

    def shown(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of what a network receives and answers with, for images of a shape (C, H, W)."""
        return (self.stack * shape[0], *shape[1:])

    def around(self, network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        """The network together with what the parametrisation must know of the data: by itself nothing."""
        return network

    def ask(
        self,
        network: nn.Module,
        x_t: Tensor,
        t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        cond: Tensor | None,
        schedule: Schedule,
    ) -> Prediction:
        """What a network, as `around` gives it, says at states ``x_t`` and times ``(B,)``."""
        output = network(self.network_input(x_t, alpha, sigma, schedule), t.to(x_t.dtype), cond)
        # Under autocast the output is bfloat16: conversions divide by alpha and sigma and are done in the state's precision.
        return self.estimate(x_t, output.to(x_t.dtype), alpha, sigma)


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


class GaussianCorrection(Parametrisation):
    """The network corrects the best denoiser of Gaussian data with the mean m and the covariance S of its training set:

        eps = (1 + G) eps_S + c F,    eps_S = sigma (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m)

    It is shown two images, ``x_t / sqrt(alpha^2 v + sigma^2)`` and ``(x0_S - m) / sqrt(v)``, with v = tr S / D and x0_S the clean image of
    the closed form, and answers with two, F and G. c is the root mean square error of eps_S on Gaussian data, so that F has to be of size
    1:

        c^2 = tr(alpha^2 S (alpha^2 S + sigma^2 I)^-1) / D

    A network whose last layer begins at 0 begins as the closed form, which is what all models learn first (Wang & Vastola 2311.10892).
    Where that is wrong, as in the background of an image, G takes it away. Without G and the second image a network would have to compute
    the closed form, an operator of the whole image, to take it away: it begins as low, and falls behind.

    Args:
        components: leading axes of the covariance that are kept; along all others the variance is their mean.
    """

    stack = 2

    def __init__(self, *, components: int = 256):
        require_positive(components=components)
        self.components = components

    def around(self, network: nn.Module, shape: tuple[int, int, int]) -> WithMoments:
        return WithMoments(network, shape, self.components)

    def estimate(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        raise NotImplementedError("what the answers of this network mean depends on the data: ask it.")

    def ask(
        self,
        network: nn.Module,
        x_t: Tensor,
        t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        cond: Tensor | None,
        schedule: Schedule,
    ) -> Prediction:
        assert isinstance(network, WithMoments)  # NetworkDenoiser has seen to it
        with torch.autocast(x_t.device.type, enabled=False):  # bfloat16 would be divided by a small sigma
            found = network.gaussian(x_t, alpha, sigma)
            noisy = x_t * torch.rsqrt(alpha**2 * network.variance + sigma**2)
            shown = torch.cat([noisy, found.x0 * torch.rsqrt(network.variance)], 1)
        answer = network(shown, t.to(x_t.dtype), cond).to(x_t.dtype)
        correction, gate = answer.chunk(2, 1)
        eps = (1.0 + gate) * found.eps + found.error * correction
        return Prediction(x_t, alpha, sigma, (x_t - sigma * eps) / alpha, eps)


PREDICTIONS: Registry[Parametrisation] = Registry(
    "prediction",
    {
        **{units: partial(Direct, units) for units in (*UNITS, "score")},
        "edm": EDMPreconditioning,
        "gaussian": GaussianCorrection,
    },
    elsewhere={
        **dict.fromkeys(("epsilon", "noise", "pred-noise"), "eps"),
        **dict.fromkeys(("sample", "x-start", "x-0", "pred-x0", "denoised"), "x0"),
        **dict.fromkeys(("v-prediction", "pred-v"), "v"),
        **dict.fromkeys(("rectified-flow", "flow-prediction"), "flow"),
    },
)
