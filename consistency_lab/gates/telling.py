"""What a gate holds its candidate to, and what it can tell after each look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consistency_lab.gates.decision import OPEN, decide, more_samples
from consistency_lab.gates.samples import Distances
from consistency_lab.gates.sequence import Seen, ratio, seen
from consistency_lab.intervals import Array, Interval


class Criterion(NamedTuple):
    """What must hold of every metric.

    Attributes:
        bounds: the score that each must reach; None: the ceiling less the margin.
        margin: how far a score may be below the ceiling.
        error: of either end of each metric's interval.
    """

    bounds: tuple[float, ...] | None
    margin: float
    error: float

    def most(self, metric: int) -> float:
        """What the ratio to the null may be, of the distance or, without a bound, of its excess over the second run's."""
        return self.margin if self.bounds is None else 1 - self.bounds[metric]


class Told(NamedTuple):
    """What is known of one metric after its looks.

    Attributes:
        score, ceiling, shortfall: with their ends, at each look; the last two None without a second run.
        decision: by the last look.
        more: samples that would tell; NaN where it can be told, or where nobody knows.
    """

    score: Interval
    ceiling: Interval | None
    shortfall: Interval | None
    decision: str
    more: float


def tell(distances: Distances, looks: Sequence[int], criterion: Criterion, metric: int) -> Told:
    """What is known of a metric.

    Args:
        distances: of all units so far.
        looks: how many of them each look has seen; the last one all.
        metric: its place among those of the criterion.
    """
    null, at = distances.nulls.mean(-1), np.asarray(looks)

    def among(values: Array) -> tuple[Seen, Interval]:
        what = seen(values, null, at)
        return what, ratio(what, criterion.error)

    own, distance = among(distances.own)
    judged, held = (own, distance) if criterion.bounds is not None else among(distances.excess)
    most = criterion.most(metric)
    decision = decide(float(held.low[-1]), float(held.high[-1]), most)
    last = Seen(*(each[..., -1] for each in judged))
    more = np.nan if decision != OPEN else more_samples(last, most, criterion.error)
    if distances.again is None:
        return Told(_score(distance), None, None, decision, more)
    ceiling = _score(among(distances.again)[1])
    return Told(_score(distance), ceiling, _known(among(distances.excess)[1]), decision, more)


def _score(ratio: Interval) -> Interval:
    """1 - distance / null; no distance is below 0, so no score is above 1."""
    estimate, low, high = ratio
    return _known(Interval(1 - estimate, 1 - high, np.minimum(1 - low, 1.0)))


def _known(interval: Interval) -> Interval:
    """NaN for ends of which nothing is known."""
    return Interval(*(np.where(np.isfinite(part), part, np.nan) for part in interval))
