"""Denoisers in closed form: what is known of a data set without training anything.

They are denoisers like any other: sampled, compared and probed through the same calls, and the oracles of the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.local import LocalDenoiser
from consistency_lab.diffusion.moments import moments_of
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError


class GaussianDenoiser(Denoiser):
    """The best denoiser for Gaussian data: the Wiener filter (Wang & Vastola 2311.10892, section 3).

        x0(x, s) = mean + Cov (Cov + s^2 I)^-1 (x - mean),        x = x_t / alpha, s = sigma / alpha

    Args:
        mean: ``(C, H, W)``.
        covariance: ``(D, D)`` with D = C H W, symmetric and positive semi-definite.
        schedule: the noise schedule.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule):
        super().__init__()
        size = mean.numel()
        if covariance.shape != (size, size):
            raise UserError(
                f"a covariance for {size} pixels is {size} x {size}, not {' x '.join(map(str, covariance.shape))}."
            )
        self.schedule, self.shape = schedule, (int(mean.shape[0]), int(mean.shape[1]), int(mean.shape[2]))
        variances, axes = torch.linalg.eigh(covariance.double())
        self.register_buffer("mean", mean.double().flatten())
        self.register_buffer("variances", variances.clamp_min(0.0))  # rounding leaves tiny negative eigenvalues
        self.register_buffer("axes", axes)

    @classmethod
    def fit(cls, images: Tensor, schedule: Schedule) -> GaussianDenoiser:
        """With the mean and the (population) covariance of images ``(N, C, H, W)``."""
        if len(images) < 2:
            raise UserError("a covariance needs at least two images.")
        mean, covariance = moments_of(images)
        return cls(mean.reshape(images.shape[1:]), covariance, schedule)

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        # Filter in float64: at low noise the gain is 1 - s^2 / variance, and its error would be divided by s again.
        level = (self.schedule.noise_to_signal(t) ** 2)[:, None]
        centred = (x_t.double() / self.schedule.alpha(t).reshape(-1, 1, 1, 1)).flatten(1) - self.mean
        gain = self.variances / (self.variances + level)
        x0 = self.mean + ((centred @ self.axes) * gain) @ self.axes.T
        return Prediction.of(x_t, x0.reshape(x_t.shape).to(x_t.dtype), "x0", alpha, sigma)

    def flow_map(self, x_t: Tensor, t: float) -> Tensor:
        """The exact solution at t = 0 of the probability-flow ODE through ``x_t`` ``(B, C, H, W)``, float64.

        x(0) = mean + Cov^1/2 (Cov + s^2 I)^-1/2 (x_t / alpha - mean)        (2311.10892, equation 11)
        """
        level = self.schedule.noise_to_signal(t) ** 2
        centred = (x_t.double() / self.schedule.alpha(t)).flatten(1) - self.mean
        gain = torch.sqrt(self.variances / (self.variances + level))
        return (self.mean + ((centred @ self.axes) * gain) @ self.axes.T).reshape(x_t.shape)


class ConstantDenoiser(Denoiser):
    """Answers every question with one image, the data mean: the baseline that knows nothing of its input.

    Args:
        image: ``(C, H, W)``.
        schedule: the noise schedule.
    """

    image: Tensor

    def __init__(self, image: Tensor, schedule: Schedule):
        super().__init__()
        self.schedule, self.shape = schedule, (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
        self.register_buffer("image", image)

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        return Prediction.of(x_t, self.image.to(x_t.dtype).expand_as(x_t), "x0", alpha, sigma)


def closed_form(name: str, images: Tensor, schedule: Schedule) -> Denoiser:
    """The reference of that name in `CLOSED_FORMS`, perhaps with options, for a training set ``(N, C, H, W)``."""
    return CLOSED_FORMS.build(name, images, schedule)


CLOSED_FORMS: Registry[Denoiser] = Registry(
    "reference",
    {
        "gaussian": GaussianDenoiser.fit,
        "optimal": OptimalDenoiser,
        "mean": lambda images, schedule: ConstantDenoiser(images.mean(0), schedule),
        "local": LocalDenoiser,
    },
)
DEFAULT_REFERENCES = ("gaussian", "optimal", "mean")
