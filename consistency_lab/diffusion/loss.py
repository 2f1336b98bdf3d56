"""The one loss of the package. Its signature is what makes shared noise, difficulty per timestep, curricula and landscapes possible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.prediction import Prediction, per_sample
from consistency_lab.diffusion.schedule import Schedule


def noisy_state(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """``x_t = alpha(t) x0 + sigma(t) eps`` for images ``(B, C, H, W)`` and times ``(B,)``."""
    return per_sample(schedule.alpha(t), x0) * x0 + per_sample(schedule.sigma(t), x0) * eps


def truth(prediction: Prediction, x0: Tensor, eps: Tensor) -> Prediction:
    """What a prediction made at ``x_t = alpha x0 + sigma eps`` should have been."""
    return Prediction(prediction.x_t, prediction.alpha, prediction.sigma, x0, eps)


def mean_square(residual: Tensor, *_: Tensor) -> Tensor:
    """``(B, ...)`` to ``(B,)``."""
    return residual.pow(2).flatten(1).mean(1)


class TwoStepLoss(ABC):
    """A loss ``loss(model, *tensors) -> (B,)`` whose first step does not depend on the weights of the model.

    Whoever asks many weights about the same tensors takes the first step once.
    """

    @abstractmethod
    def prepared(self, model: Any, *tensors: Tensor) -> Callable[[], Tensor]:
        """The first step: a function that gives the loss of these tensors for the weights that the model has when it is called."""

    def __call__(self, model: Any, *tensors: Tensor) -> Tensor:
        return self.prepared(model, *tensors)()


@dataclass(frozen=True)
class DenoisingLoss(TwoStepLoss):
    """`denoising_loss` in some units: ``loss(denoiser, x0, t, eps, cond)``. Noisy states, levels and the right answer are made first."""

    units: str = "eps"

    def prepared(self, model: Denoiser, *tensors: Tensor) -> Callable[[], Tensor]:
        error = _error(model, *tensors, units=self.units)
        return lambda: mean_square(error())


def denoising_loss(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None = None, units: str = "eps"
) -> Tensor:
    """Squared error of the denoiser per sample: ``(B,)``, the mean over pixels, unweighted, in the named units.

    Time and noise come from outside and nothing is averaged over the batch (Ho et al. 2006.11239, equation 14, before its expectation).

    Args:
        denoiser: what is asked.
        x0: clean images ``(B, C, H, W)`` in [-1, 1].
        t: times ``(B,)`` in ``[t_min, t_max]``.
        eps: standard normal noise shaped as ``x0``.
        cond: class labels ``(B,)``, or None for "no label".
        units: ``"eps"``, ``"x0"``, ``"v"`` or ``"flow"``, whatever the network predicts.

    Raises:
        UserError: times outside the schedule's range, another image shape, unknown units.
    """
    return mean_square(denoising_error(denoiser, x0, t, eps, cond, units))


def denoising_error(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None = None, units: str = "eps"
) -> Tensor:
    """What `denoising_loss` is the mean square of, ``(B, C, H, W)``."""
    return _error(denoiser, x0, t, eps, cond, units=units)()


def _error(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None = None, *, units: str
) -> Callable[[], Tensor]:
    """`denoising_error` as a function of the denoiser's weights alone."""
    times, alpha, sigma = denoiser.levels(t, x0)
    x_t = alpha * x0 + sigma * eps
    right = Prediction(x_t, alpha, sigma, x0, eps).in_units(units)
    return lambda: denoiser.predict(x_t, times, alpha, sigma, cond).in_units(units) - right
