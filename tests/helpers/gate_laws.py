"""Laws of distances and nulls for simulated gates, in units of the mean null: distances ``(gates, units, 4)``, nulls ``(gates, units)``."""

import numpy as np

from consistency_lab.gates.decision import FAIL, OPEN, PASS
from consistency_lab.gates.sequence import UNIT, ratio, seen

FIRST = 8  # units before the first look
LAWS = ("normal", "log-normal", "heavy", "correlated", "failures", "gross failures", "quarter", "exploding")


def draw(law, mean, gates, units, rng):
    """Distances with that mean, nulls with mean 1."""
    shape = (gates, units, UNIT)
    if law == "heavy null":
        return draw("log-normal", mean, gates, units, rng)[0], np.exp(rng.normal(-(1.5**2) / 2, 1.5, shape[:2]))
    nulls = np.exp(rng.normal(0, 0.25, shape[:2]) - 0.25**2 / 2)
    if law == "normal":
        return rng.normal(mean, 0.3 * mean, shape), nulls
    if law in ("log-normal", "heavy"):
        spread = 1.0 if law == "log-normal" else 1.5
        return mean * np.exp(rng.normal(-(spread**2) / 2, spread, shape)), nulls
    if law == "correlated":  # images of much contrast are further from everything
        common = rng.normal(size=(gates, units, 1))
        own = 0.6 * common + 0.8 * rng.normal(size=shape)
        return mean * np.exp(0.7 * own - 0.7**2 / 2), np.exp(0.3 * common[..., 0] - 0.3**2 / 2)
    if law == "exploding":  # images whose values run away are far from everything, their own among it
        nulls = np.exp(rng.normal(-(1.5**2) / 2, 1.5, shape[:2]))
        return mean * nulls[..., None] * np.exp(rng.normal(-0.5, 1.0, shape)), nulls
    size = {"failures": 1.0, "gross failures": 2.0, "beyond": 4.0, "quarter": 4 * mean}[law]
    return np.where(rng.random(shape) < mean / size, size, 0.0), nulls  # the rest is equal to the reference


def gates(law, mean, most, count=1000, units=256, seed=0, error=0.025, step=1):
    """What so many gates decide, with a look at every unit from `FIRST` on, and the samples that each saw."""
    distances, nulls = draw(
        law, mean, count, units, np.random.default_rng([seed, LAWS.index(law) if law in LAWS else 99])
    )
    looks = np.arange(FIRST, units + 1, step)
    _, low, high = ratio(seen(distances, nulls, looks), error)
    told = (high <= most) | (low > most)
    at = np.where(told.any(1), told.argmax(1), len(looks) - 1)
    row = np.arange(count)
    decisions = np.where(high[row, at] <= most, PASS, np.where(low[row, at] > most, FAIL, OPEN))
    return decisions, looks[at] * UNIT
