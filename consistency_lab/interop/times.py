"""What a module is given as time: from t in [0, 1], 0 data and 1 noise, to the number that its own training loop gave it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from consistency_lab.choices import Choice, Registry
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, short
from consistency_lab.interop.schedules import discrete_steps

TimeMap = Callable[[Tensor], Tensor]
_SNAP = 1e-3


def timestep_index(t: Tensor, steps: int) -> Tensor:
    """The timestep ``T t - 1`` of times ``(B,)``, as floats."""
    index = steps * t - 1
    # A float32 time can miss its discrete step by 1e-4 of an index; there are embeddings that would notice.
    nearest = index.round()
    return torch.where((index - nearest).abs() < _SNAP, nearest, index)


def _shaped(time_map: TimeMap, broadcast: bool) -> TimeMap:
    return (lambda t: time_map(t)[:, None, None, None]) if broadcast else time_map


def _time(of: Callable[[Tensor, Schedule], Tensor], schedule: Schedule, *, broadcast: bool = False) -> TimeMap:
    return _shaped(lambda t: of(t, schedule), broadcast)


def _index(schedule: Schedule, *, integer: bool = False, broadcast: bool = False) -> TimeMap:
    time_map = partial(timestep_index, steps=discrete_steps(schedule))
    return _shaped((lambda t: time_map(t).round().long().clamp_min(0)) if integer else time_map, broadcast)


# Builders are given the schedule in the module's own units. ``broadcast``: (B, 1, 1, 1) in place of (B,).
TIMES: Registry[TimeMap] = Registry(
    "time",
    {
        "unit": partial(_time, lambda t, schedule: t),
        "reversed": partial(_time, lambda t, schedule: 1 - t),
        "index": _index,
        "sigma": partial(_time, lambda t, schedule: schedule.sigma(t).to(t.dtype)),
    },
    elsewhere={
        **dict.fromkeys(("timestep", "timesteps", "step", "steps", "discrete"), "index"),
        **dict.fromkeys(("t", "time", "continuous"), "unit"),
    },
)


def as_time_map(time: str | Choice | TimeMap, schedule: Schedule) -> TimeMap:
    """The function of t that a name in `TIMES` stands for; a function is itself. Raises `UserError` for what is neither."""
    if isinstance(time, str | Choice):
        return TIMES.build(time, schedule)
    if not callable(time):
        raise UserError(f"time={short(time)} is neither a function of t nor one of {', '.join(TIMES.names())}.")
    return time


def other_forms(time: str | Choice | TimeMap) -> list[str]:
    """The same time in the other shapes and types that modules want; none for a function, whose form is the caller's."""
    if not isinstance(time, str | Choice):
        return []
    told = Choice.parse(time)
    switches = [key for key in TIMES.options(told.name) if not told.options.get(key)]
    return [str(Choice(told.name, {**told.options, key: True})) for key in switches]
