"""Pass, fail or cannot tell: what an interval says of a bound, and how many more samples would tell."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from consistency_lab.gates.sequence import BETS, Seen, ratio

PASS, FAIL, OPEN = "pass", "fail", "cannot tell"
STATUS = {PASS: 0, FAIL: 1, OPEN: 3}  # exit status of the command; 2 is for input that cannot be used
_MOST_UNITS = 2**18  # beyond a million samples nobody is told a number


def decide(low: float, high: float, most: float) -> str:
    """The decision on a ratio that must not exceed ``most``, by its interval: `PASS` at or below, `FAIL` above, else `OPEN`."""
    return PASS if high <= most else FAIL if low > most else OPEN


def together(decisions: Iterable[str]) -> str:
    """Of several: one that fails fails all, and all must pass."""
    found = set(decisions)
    return FAIL if FAIL in found else OPEN if OPEN in found else PASS


def more_samples(seen: Seen, most: float, error: float) -> float:
    """How many more samples would tell, had they the means and variances of those seen; NaN where a million would not.

    A single unit has no variance: then those that a perfect candidate would need, the fewest that could tell.

    Args:
        seen: at one look, of one metric.
        most, error: as in `decide` and `ratio`.
    """

    def tells(units: int) -> bool:
        _, low, high = ratio(seen.at(units), error)
        return decide(float(low), float(high), most) != OPEN

    high = now = int(seen.units)
    if now < 2:
        nothing = np.zeros(())
        seen = seen._replace(e=nothing, ee=nothing, eu=nothing, uu=nothing, growth=np.zeros(BETS))
    while not tells(high):
        high *= 2
        if high > _MOST_UNITS:
            return np.nan
    low = high // 2 if high > now else now - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return float(max(high - now, 0) * seen.size)
