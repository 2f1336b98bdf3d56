"""Denoisers: whatever a network predicts, everything that can be asked of it at a noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice
from consistency_lab.devices import sent
from consistency_lab.diffusion.moments import WithMoments
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.prediction import Prediction, per_sample
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import ShapeError, UserError


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
            raise ShapeError(
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
        network: ``(x, t, cond) -> x-shaped tensor``; it knows no schedule. Where ``"gaussian"`` is predicted, one of stacked images
            (`Parametrisation.stack`) with the moments of the data around it (`Parametrisation.around`).
        schedule: the noise schedule.
        shape: the image shape ``(C, H, W)``.
        predicts: what the network's output means: ``"eps"``, ``"x0"``, ``"v"``, ``"flow"``, ``"score"``, ``"edm(sigma_data=...)"`` or
            ``"gaussian"``.

    Raises:
        UserError: a prediction that does not exist, or ``"gaussian"`` of a network without the moments of its data.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, shape: tuple[int, int, int], predicts: str | Choice = "eps"
    ):
        super().__init__()
        self.parametrisation = PREDICTIONS.build(predicts)
        if self.parametrisation.stack > 1 and not isinstance(network, WithMoments):
            raise UserError(
                f"predicts={str(predicts)!r} is a correction that needs the moments of the training set, which {type(network).__name__} "
                "does not hold; train makes such models."
            )
        self.network, self.schedule, self.shape, self.predicts = network, schedule, shape, str(predicts)

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        return self.parametrisation.ask(self.network, x_t, t, alpha, sigma, cond, self.schedule)


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
