"""How much an error counts at each noise level.

Every weighting is defined once, as the weight w_eps(t) of the squared error in eps, and converted to the units in which a run takes its
loss. With e the error in eps, the errors in the other units are

    x0: -(sigma / alpha) e,      v: (alpha^2 + sigma^2) / alpha e,      flow: (alpha + sigma) / alpha e,

so that a weight divides by the square of that factor: w_x0 = w_eps SNR and, for a variance-preserving schedule, w_v = w_eps alpha^2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.diffusion.prediction import UNITS
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.training.timesteps.base import check_weights

_GRID = 1000  # cells over which a change-aware weight looks for its steepest and flattest place


class Weighting(ABC):
    """A weight of the squared error as a function of time."""

    @abstractmethod
    def eps(self, schedule: Schedule, t: Tensor) -> Tensor | None:
        """w_eps at times ``(B,)``, float64; None: 1 in whatever units the loss is taken."""

    def weights(self, schedule: Schedule, t: Tensor, units: str) -> Tensor | None:
        """Weights ``(B,)`` float64 of a squared error in ``units``; None for 1 throughout.

        Raises:
            UserError: unknown units, or an `eps` that does not give one finite weight of 0 or more per time.
        """
        if units not in UNITS:
            raise unknown_name("objective", units, UNITS)
        weight = self.eps(schedule, t)
        if weight is None:
            return None
        name = f"the weighting {type(self).__name__}"
        if not isinstance(weight, Tensor) or weight.shape != t.shape:
            given = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise UserError(f"{name} must give one weight per time, a tensor of shape {tuple(t.shape)}, not {given}.")
        weight = weight / error_factor(schedule, t, units) ** 2
        check_weights(name, weight)
        return weight


def error_factor(schedule: Schedule, t: Tensor, units: str) -> Tensor:
    """What an error in eps at times ``(B,)`` is multiplied by, up to its sign, to be the error in ``units``; float64."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    factors = {
        "eps": torch.ones_like(alpha),
        "x0": sigma / alpha,
        "v": (alpha**2 + sigma**2) / alpha,
        "flow": (alpha + sigma) / alpha,
    }
    return factors[units]


def _snr(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.noise_to_signal(t) ** -2


class Unweighted(Weighting):
    """The plain squared error in the units of the objective: DDPM's simple loss where those are eps."""

    def eps(self, schedule: Schedule, t: Tensor) -> None:
        return None


class MinSNR(Weighting):
    """Hang et al. (2303.09556, section 3.4): w_eps = min(SNR, gamma) / SNR.

    Args:
        gamma: above 0.
    """

    def __init__(self, *, gamma: float = 5.0):
        if not gamma > 0:
            raise UserError(f"min-snr needs a gamma above 0, not {gamma!r}.")
        self.gamma = gamma

    def eps(self, schedule: Schedule, t: Tensor) -> Tensor:
        return (self.gamma / _snr(schedule, t)).clamp_max(1.0)


class P2(Weighting):
    """Choi et al. (2204.00227, equation 8): w_eps = 1 / (k + SNR)^gamma.

    Args:
        k: above 0; gamma: 0 or more, 1 and 0.5 in the paper.
    """

    def __init__(self, *, k: float = 1.0, gamma: float = 1.0):
        if not (k > 0 and gamma >= 0):
            raise UserError(f"p2 needs k above 0 and gamma of 0 or more, not k={k!r}, gamma={gamma!r}.")
        self.k, self.gamma = k, gamma

    def eps(self, schedule: Schedule, t: Tensor) -> Tensor:
        return (self.k + _snr(schedule, t)) ** -self.gamma


class EDM(Weighting):
    """Karras et al. (2206.00364, table 1): 1 / c_out^2 on the error in x0, so that w_eps = (s^2 + d^2) / d^2 with s = sigma / alpha.

    Args:
        sigma_data: d, the standard deviation of the data's pixels. Training measures it on its set where it is None.
    """

    def __init__(self, *, sigma_data: float | None = None):
        if sigma_data is None or not sigma_data > 0:
            raise UserError(
                f"the edm weighting needs the data's standard deviation, above 0: write edm(sigma_data=0.5), not {sigma_data!r}."
            )
        self.sigma_data = sigma_data

    def eps(self, schedule: Schedule, t: Tensor) -> Tensor:
        return 1.0 + (schedule.noise_to_signal(t) / self.sigma_data) ** 2


class SpeeD(Weighting):
    """Wang et al. (2405.17403), change-aware: more weight where the noise variance of x_t grows faster.

        w_eps = (1 - lam) + (2 lam - 1) (g - min g) / (max g - min g),      g = d(1 - alpha^2) / dt

    (Their code sets the weight to 1 beyond the time from which their sampler draws rarely; that is left to the sampler here.)

    Args:
        lam: in [0.5, 1]; the weights lie between 1 - lam and lam.
    """

    def __init__(self, *, lam: float = 0.6):
        if not 0.5 <= lam <= 1:
            raise UserError(f"the lam of the speed weighting lies in [0.5, 1], not {lam!r}.")
        self.lam = lam

    def eps(self, schedule: Schedule, t: Tensor) -> Tensor:
        edges = torch.linspace(schedule.t_min, schedule.t_max, _GRID + 1, dtype=torch.float64, device="cpu")
        growth = (-(schedule.alpha(edges) ** 2)).diff()
        if not float(growth.max() - growth.min()) > 1e-12:
            raise UserError(
                f"the speed weighting follows the fall of alpha, which is constant on the schedule {schedule.spec!r}; choose another."
            )
        scaled = (growth - growth.min()) / (growth.max() - growth.min())
        centres = (edges[:-1] + edges[1:]) / 2
        share = torch.from_numpy(np.interp(t.double().cpu().numpy(), centres.numpy(), scaled.numpy()))
        return (1.0 - self.lam) + (2.0 * self.lam - 1.0) * share


WEIGHTINGS: Registry[Weighting] = Registry(
    "weighting", {"none": Unweighted, "min-snr": MinSNR, "p2": P2, "edm": EDM, "speed": SpeeD}
)
