"""Noise schedules.

The one convention of time in this package: ``t`` is a float in [0, 1], 0 is data and 1 is noise, and

    x_t = alpha(t) x_0 + sigma(t) eps,        log_snr(t) = log(alpha(t)^2 / sigma(t)^2).

Schedules compute in float64 whatever they are given. ``alpha`` and ``sigma`` are defined on all of [0, 1]; the log-SNR and every
conversion between predictions only on ``[t_min, t_max]``, where neither alpha nor sigma vanishes.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.errors import UserError

Time = Tensor | float
_TOLERANCE = 1e-6  # a float32 time may miss its float64 bound by this much


def _as_double(value: Time) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(torch.float64)
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


class Schedule(ABC):
    """How signal and noise are mixed at each time. Two schedules are equal when their ``spec`` texts are."""

    spec: str
    t_min: float
    t_max: float

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Signal scale at ``t`` (any shape), float64."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Noise scale at ``t`` (any shape), float64."""

    def alpha_sigma(self, t: Time) -> tuple[Tensor, Tensor]:
        """Both scales at ``t`` (any shape), float64."""
        return self.alpha(t), self.sigma(t)

    @abstractmethod
    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor: ...

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor | None:
        """What a state is multiplied by before a network sees it, or None for nothing: states whose size varies a lot need it."""
        return None

    def noise_to_signal(self, t: Time) -> Tensor:
        """``s = sigma / alpha``: the noise level of ``x_t / alpha``, the scale that all schedules share. Zero at t = 0."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Time) -> Tensor:
        """``log(alpha^2 / sigma^2)``, strictly decreasing in t. Raises `UserError` outside ``[t_min, t_max]``."""
        return -2.0 * torch.log(self.noise_to_signal(self.check(t)))

    def time_from_log_snr(self, log_snr: Time) -> Tensor:
        """The inverse of `log_snr`. Raises `UserError` where it would leave ``[t_min, t_max]``."""
        value = _as_double(log_snr)
        low, high = self.log_snr_range
        # The bounds are themselves rounded: a level that was read off this schedule must always come back.
        slack = 1e-9 * max(abs(low), abs(high))
        if value.numel() and bool(((value < low - slack) | (value > high + slack)).any()):
            raise UserError(
                f"log-SNR {value.min():.4g} to {value.max():.4g} leaves what the schedule {self.spec!r} covers, "
                f"{low:.4g} to {high:.4g}; choose levels inside."
            )
        return self._time_from_log_snr(value).clamp(self.t_min, self.t_max)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Lowest and highest log-SNR on ``[t_min, t_max]``."""
        return float(self.log_snr(self.t_max)), float(self.log_snr(self.t_min))

    def check(self, t: Time) -> Tensor:
        """``t`` as float64, refused with a `UserError` outside ``[t_min, t_max]``.

        On an accelerator the values are not looked at: that would wait for the device at every step. Times are made on
        the CPU, by samplers and grids, and are checked there.
        """
        value = _as_double(t)
        outside = ~((value >= self.t_min - _TOLERANCE) & (value <= self.t_max + _TOLERANCE))  # NaN too
        if value.device.type == "cpu" and bool(outside.any()):
            raise UserError(
                f"t from {float(value.min()):.6g} to {float(value.max()):.6g} leaves [{self.t_min:g}, {self.t_max:g}], where the "
                f"schedule {self.spec!r} can convert between predictions; choose times inside."
            )
        return value

    def grid(self, steps: int) -> Tensor:
        """The times a solver of ``steps`` network evaluations visits, float64 ``(steps + 1,)``, from t_max down to 0.

        Equal steps in t; with 1000 steps on a 1000-step VP schedule these are the paper's own timesteps.
        Raises `UserError` for fewer than 1 step or for so many that the last would fall below ``t_min``.
        """
        if steps < 1:
            raise UserError(f"a sampler needs at least 1 step, not {steps}.")
        times = torch.linspace(self.t_max, 0.0, steps + 1, dtype=torch.float64, device="cpu")
        if times[-2] < self.t_min - _TOLERANCE:
            raise UserError(
                f"{steps} steps fall below t_min = {self.t_min:g} of {self.spec!r}; use at most {int(self.t_max / self.t_min)}."
            )
        return times

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.spec)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"


class TableVP(Schedule):
    """A variance-preserving schedule given at T discrete steps; step i = 0 ... T-1 is the time (i + 1) / T.

    Between the steps log(alpha^2) is interpolated linearly: exact at every discrete step, with an exact inverse.

    Args:
        log_alpha_bar: log of the cumulative products of (1 - beta_i), length T, float64, decreasing.
        spec: the text by which this schedule is known; a digest of the table where none is given.
    """

    def __init__(self, log_alpha_bar: Sequence[float] | np.ndarray, spec: str | None = None):
        table = np.concatenate([[0.0], np.asarray(log_alpha_bar, dtype=np.float64)])
        if len(table) < 3 or not np.isfinite(table).all() or (np.diff(table) >= 0).any():
            raise UserError(
                "a discrete schedule needs at least two steps whose alpha-bar is finite and strictly decreasing from below 1."
            )
        self.discrete_steps = len(table) - 1
        self.spec = spec or f"table({hashlib.sha256(table.tobytes()).hexdigest()[:12]})"
        self.t_min, self.t_max = 1.0 / self.discrete_steps, 1.0
        self._tables = {torch.device("cpu"): torch.from_numpy(table)}

    def _table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]

    def _log_alpha_bar(self, t: Time) -> Tensor:
        position = _as_double(t) * self.discrete_steps
        table = self._table(position.device)
        below = position.floor().long().clamp(0, self.discrete_steps - 1)
        return table[below] + (position - below) * (table[below + 1] - table[below])

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(0.5 * self._log_alpha_bar(t))

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(self._log_alpha_bar(t)))

    def alpha_sigma(self, t: Time) -> tuple[Tensor, Tensor]:
        log_alpha_bar = self._log_alpha_bar(t)
        return torch.exp(0.5 * log_alpha_bar), torch.sqrt(-torch.expm1(log_alpha_bar))

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        target = torch.nn.functional.logsigmoid(log_snr)  # log(alpha^2), since alpha^2 + sigma^2 = 1
        table = self._table(target.device)
        above = torch.searchsorted(-table, -target.contiguous()).clamp(1, self.discrete_steps)
        fraction = (target - table[above - 1]) / (table[above] - table[above - 1])
        return (above - 1 + fraction) / self.discrete_steps


def linear_vp(*, beta_start: float = 1e-4, beta_end: float = 0.02, steps: int = 1000) -> TableVP:
    """DDPM's linear-beta schedule (Ho et al. 2006.11239, section 4), the one of the paper: exact at its 1000 steps."""
    log_alpha_bar = np.cumsum(np.log1p(-np.linspace(beta_start, beta_end, steps, dtype=np.float64)))
    return TableVP(log_alpha_bar, spec=f"linear(beta_end={beta_end!r}, beta_start={beta_start!r}, steps={steps!r})")


class CosineVP(Schedule):
    """The cosine schedule of Nichol & Dhariwal (2102.09672, equation 17), continuous, with offset ``s``."""

    def __init__(self, *, s: float = 0.008):
        self.s = s
        self.spec = f"cosine(s={s!r})"
        # At t = 1 the signal vanishes; the published discrete form clips beta at its last steps for the same reason.
        self.t_min, self.t_max = 0.001, 0.999

    def _cosine(self, t: Tensor) -> Tensor:
        return torch.cos((t + self.s) / (1 + self.s) * (math.pi / 2))

    def alpha(self, t: Time) -> Tensor:
        return self._cosine(_as_double(t)) / self._cosine(_as_double(0.0))

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt((1 - self.alpha(t) ** 2).clamp_min(0.0))

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        alpha = torch.sigmoid(log_snr).sqrt()
        return torch.acos(alpha * self._cosine(_as_double(0.0))) * (2 / math.pi) * (1 + self.s) - self.s


class EDM(Schedule):
    """Karras et al. (2206.00364): alpha = 1, noise from ``sigma_min`` to ``sigma_max``.

    ``sigma(t) = sigma_max t^rho``, so that equal steps in t on [t_min, 1] are equation 5's steps, and t = 0 is data.
    """

    def __init__(self, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_max, self.rho = sigma_max, rho
        self.spec = f"edm(rho={rho!r}, sigma_max={sigma_max!r}, sigma_min={sigma_min!r})"
        self.t_min, self.t_max = (sigma_min / sigma_max) ** (1 / rho), 1.0

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(_as_double(t))

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_max * _as_double(t) ** self.rho

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return (torch.exp(-0.5 * log_snr) / self.sigma_max) ** (1 / self.rho)

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor | None:
        """``1 / sqrt(1 + sigma^2)``: the state of the variance-preserving schedule at the same log-SNR."""
        return torch.rsqrt(alpha**2 + sigma**2)

    def grid(self, steps: int) -> Tensor:
        """Equation 5's noise levels, the lowest being sigma_min, and then 0."""
        if steps < 1:
            raise UserError(f"a sampler needs at least 1 step, not {steps}.")
        levels = torch.linspace(
            self.t_max, self.t_min if steps > 1 else self.t_max, steps, dtype=torch.float64, device="cpu"
        )
        return torch.cat([levels, torch.zeros_like(levels[:1])])


class RectifiedFlow(Schedule):
    """The straight line between data and noise (Liu et al. 2209.03003): alpha = 1 - t, sigma = t."""

    def __init__(self) -> None:
        self.spec = "flow"
        self.t_min, self.t_max = 0.001, 0.999

    def alpha(self, t: Time) -> Tensor:
        return 1 - _as_double(t)

    def sigma(self, t: Time) -> Tensor:
        return _as_double(t).clone()

    def _time_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr)


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    {"linear": linear_vp, "cosine": CosineVP, "edm": EDM, "flow": RectifiedFlow},
    elsewhere={
        **dict.fromkeys(("ddpm", "vp", "vp-sde"), "linear"),
        **dict.fromkeys(("iddpm", "improved-ddpm", "squaredcos-cap-v2"), "cosine"),
        **dict.fromkeys(("rectified-flow", "flow-matching"), "flow"),
        **dict.fromkeys(("ve", "ve-sde"), "edm"),
    },
)
