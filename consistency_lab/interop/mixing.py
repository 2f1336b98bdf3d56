"""A noise schedule out of a function of time, for libraries whose schedules are such functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule, Time, _as_double
from consistency_lab.errors import UserError

Mixing = Callable[[Tensor], tuple[Tensor, Tensor]]
_CHECKED = 1025  # times at which the function must fall, and by which a schedule without a name is known
_HALVINGS = 60


class MixingSchedule(Schedule):
    """A schedule that a function gives: ``mixing(t) -> (alpha, sigma)`` for times ``(B,)`` float64, 0 data and 1 noise.

    At t = 0 itself there is no noise, whatever the function says: some libraries leave 1e-3 of it there.

    Args:
        mixing: the function.
        t_min, t_max: between which its signal-to-noise ratio is finite and falls strictly.
        spec: the text by which the schedule is known; a digest of its values where none is given.

    Raises:
        UserError: a function that gives something else, or whose signal-to-noise ratio does not fall.
    """

    def __init__(self, mixing: Mixing, *, t_min: float = 1e-3, t_max: float = 1.0, spec: str | None = None):
        self.mixing, self.t_min, self.t_max = mixing, t_min, t_max
        times = torch.linspace(t_min, t_max, _CHECKED, dtype=torch.float64)
        try:
            alpha, sigma = (torch.as_tensor(x, dtype=torch.float64).expand(len(times)) for x in mixing(times))
            levels = 2 * torch.log(alpha / sigma)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"a schedule's function is given times (B,) and returns alpha and sigma; {error}"
            ) from error
        if not (levels.isfinite().all() and (levels.diff() < 0).all()):
            raise UserError(
                "the signal-to-noise ratio of a schedule must fall from t = 0 (data) to t = 1 (noise) and stay finite; if the function "
                "counts time from noise to data, give lambda t: function(1 - t)."
            )
        self.spec = spec or f"function({hashlib.sha256(levels.numpy().tobytes()).hexdigest()[:12]})"

    def alpha(self, t: Time) -> Tensor:
        time = _as_double(t)
        return torch.as_tensor(self.mixing(time)[0], dtype=torch.float64, device=time.device).expand(time.shape)

    def sigma(self, t: Time) -> Tensor:
        time = _as_double(t)
        sigma = torch.as_tensor(self.mixing(time)[1], dtype=torch.float64, device=time.device)
        return torch.where(time > 0, sigma, torch.zeros_like(time))

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        low, high = (torch.full_like(log_snr, end) for end in (self.t_min, self.t_max))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            noisier = 2 * torch.log(self.alpha(middle) / self.sigma(middle)) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2
