"""When a curve reaches a target for good, and how much sooner one does than another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consistency_lab.intervals import Array, mean_interval


class Crossing(NamedTuple):
    """When a run reached the target: at a step, or not by then (``censored``)."""

    at: float
    censored: bool


class Speedup(NamedTuple):
    """How many times sooner: geometric mean over seeds with its 95 % t interval on the log scale.

    ``bound`` says what censored runs leave of it. ``""``: nothing was censored. ``"at least"``: some controls never arrived, and their
    last steps stand in. ``"at most"``: some contestants never arrived. ``"unknown"``: both. With any of these there is no interval.
    """

    estimate: float
    low: float
    high: float
    bound: str
    seeds: int
    censored: int


def first_sustained(steps: Sequence[float], losses: Sequence[float] | Array, target: float, window: float) -> Crossing:
    """The first time from which the loss stays at or below the target for ``window`` steps, or to the end of a run that ends before.

    Between two records the loss is taken to be linear. A loss that is not a number is above every target.

    Args:
        steps: rising steps of the records.
        losses: one a record.
        target: what is to be reached.
        window: steps that it must last.

    Returns:
        The crossing; of a run that never arrives, its last step, censored.
    """
    at, loss = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    below = loss <= target  # False for NaN
    for i in np.flatnonzero(below):
        if below[i:][at[i:] <= at[i] + window].all():
            if i == 0 or not np.isfinite(loss[i - 1]):
                return Crossing(float(at[i]), False)
            share = (loss[i - 1] - target) / (loss[i - 1] - loss[i]) if loss[i - 1] > target else 0.0
            return Crossing(float(at[i - 1] + share * (at[i] - at[i - 1])), False)
    return Crossing(float(at[-1]), True)


def losses_at(steps: Sequence[float] | Array, losses: Sequence[float] | Array, at: Sequence[float] | Array) -> Array:
    """The loss of a run at these steps: linear between its records, those that are numbers."""
    own, loss = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    known = np.isfinite(loss)
    return np.interp(at, own[known], loss[known])


def arrival(
    steps: Sequence[float], losses: Sequence[float] | Array, target: float, window: float, planned: int, diverged: bool
) -> Crossing:
    """`first_sustained` of a run of a race. One that diverged arrived nowhere, whatever it touched before, nor did one without a record."""
    if diverged or not len(steps):
        return Crossing(float(planned), True)
    return first_sustained(steps, losses, target, window)


def speedup(control: Sequence[Crossing], contestant: Sequence[Crossing], extra: float = 0.0) -> Speedup:
    """The control's crossings divided by the contestant's, seed by seed.

    Args:
        control, contestant: one crossing a seed, seeds in one order.
        extra: added to the contestant's, such as the steps of the pilot that its recipe needed.
    """
    late, slow = any(c.censored for c in control), any(c.censored for c in contestant)
    censored = sum(a.censored or b.censored for a, b in zip(control, contestant, strict=True))
    if late and slow:
        return Speedup(np.nan, np.nan, np.nan, "unknown", len(control), censored)
    ratios = np.array([a.at / (b.at + extra) for a, b in zip(control, contestant, strict=True)])
    mean, low, high = (float(np.exp(bound)) for bound in mean_interval(np.log(ratios)))
    if not (late or slow):
        return Speedup(mean, low, high, "", len(ratios), 0)
    return Speedup(mean, np.nan, np.nan, "at least" if late else "at most", len(ratios), censored)


def typical(crossings: Sequence[Crossing]) -> tuple[int, float]:
    """How many seeds never arrived, and the geometric mean of the crossings: a lower bound where any did not."""
    return sum(c.censored for c in crossings), float(np.exp(np.mean(np.log([c.at for c in crossings]))))


def haste(crossings: Sequence[Crossing]) -> tuple[int, float]:
    """What the fastest is the least in: seeds that never arrived, then the geometric mean of those that did.

    Where none did, the longest run comes first: it says most about when it does not arrive.
    """
    arrived = [c for c in crossings if not c.censored]
    late = len(crossings) - len(arrived)
    return (late, typical(arrived)[1]) if arrived else (late, -typical(crossings)[1])
