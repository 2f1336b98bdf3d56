"""When was each noise level learned? The step at which its error had fallen half of its way."""

from __future__ import annotations

import numpy as np

from consistency_lab.errors import UserError
from consistency_lab.intervals import Array


def half_times(steps: Array, errors: Array) -> Array:
    """The step at which an error has fallen half of the way from the first checkpoint's to the last's.

    It is the first crossing of ``(e_first + e_last) / 2`` from above, the error being taken as linear in the logarithm of the step between
    two checkpoints. What fell before the first checkpoint is not seen.

    Args:
        steps: ``(S,)`` of the checkpoints, 1 or more, increasing.
        errors: ``(S, ...)``.

    Returns:
        ``(...)``; NaN where the last error is not below the first.

    Raises:
        UserError: fewer than two checkpoints.
    """
    if len(steps) < 2:
        raise UserError(f"a half-time needs at least 2 checkpoints, not {len(steps)}; train with snapshots=8.")
    log_steps = np.log(np.asarray(steps, dtype=np.float64))
    errors = np.asarray(errors, dtype=np.float64)
    falls = errors[-1] < errors[0]
    half = 0.5 * (errors[0] + errors[-1])
    # The last checkpoint is below the half of a fall, and the first above it: there is a crossing at index 1 or later.
    after = np.maximum(np.argmax(errors <= half, axis=0), 1)
    end = np.take_along_axis(errors, after[None], 0)[0]
    start = np.take_along_axis(errors, after[None] - 1, 0)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (start - half) / (start - end)
        found = np.exp(log_steps[after - 1] + share * (log_steps[after] - log_steps[after - 1]))
    return np.where(falls, found, np.nan)
