"""What can be said of a module that does not say it: the names of schedules, predictions and times, for messages."""

from __future__ import annotations

from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.interop.times import TIMES

_OURS = "gaussian"  # a prediction that is trained here, and of no other package's module


def conventions() -> str:
    """The known values of ``schedule``, ``predicts`` and ``time``, in one clause."""
    predictions = [name for name in PREDICTIONS.names() if name != _OURS]
    return (
        f"schedule is one of {', '.join(SCHEDULES.names())} (linear is DDPM's; in Python also a table of alphas_cumprod), "
        f"predicts one of {', '.join(predictions)}, time one of {', '.join(TIMES.names())}"
    )
