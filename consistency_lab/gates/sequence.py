"""A ratio E e / E u with an interval that may be looked at as often as one likes, after every block of samples: the interval of a gate.

e is what is to be small (the candidate's distance to its reference, or what that is above the distance of the reference's own second
run), u the null; a score is 1 - E e / E u. Samples come in *units* of `UNIT` with the null taken within the unit, so that units are
independent and alike although a null has every sample in many of its pairs.

Both ends are anytime-valid: they hold at all looks at once, so a gate may stop at the first look that can tell. They answer two
different dangers, and are made differently.

* The upper end decides that a candidate passes. An image in twenty that is ruined costs .05 of a score, and forty samples without one
  have seen nothing of it: an interval made of means and variances passes more than one in ten of such candidates. So it is that of
  bets (`most`): most of e over least of u. It holds at every number of samples and for every law, if no image is further from its own
  than `GROSS` times the null; images further off count in full once they are seen. It asks for some 10 / (1 - bound) samples of a perfect
  candidate, which is what it takes to have seen rare failures.
* The lower end decides that a candidate fails. No failure that has not been seen makes a candidate better, so it is what means and
  variances say (`least`): the confidence sequence of the mean of e - r u over units, inverted for r as Fieller (1954) does for one look.

Simulated with a look at every unit, error rate of either end .025 (tests/gates/test_rates.py): candidates at the bound of .95 pass wrongly
in at most .01 and fail wrongly in at most .03 of gates, for normal, log-normal (1 and 1.5) and correlated distances, for one in 4, 20 or
40 images that is ruined, and for distances and nulls that share a heavy tail (log-normal, 1.5), as images that explode do. It falls short
beyond its assumptions: one in 80 images that is 4 nulls off, .06 pass; a null whose tail is heavy where the distances' is not, .25 fail.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from consistency_lab.intervals import Array, Interval
from consistency_lab.similarity.statistics import COLLAPSED

UNIT = 4  # samples at most, of which every pair is in the null
TUNED = 64  # units at which the interval is narrowest for its level
GROSS = 2.0  # nulls: an image twice as far as one of other noise. Black images and pure noise are 1.5 to 2.5 nulls off in squared error
BETS = 8
SIZES = 0.5 ** np.arange(BETS)  # of bets, each half as large as the last one and trusted half as much
NULL_SIZES = 8 * SIZES  # of bets that the null is larger, which cannot be lost
_OF_NULL = 0.2  # share of an error rate that the bet leaves to the null, which is known well


class Seen(NamedTuple):
    """What has been seen at some looks: of any shape ``(...)``, enough for intervals at these and, by extrapolation, later looks.

    Attributes:
        units: their number.
        e, u: means over units.
        ee, eu, uu: variances and covariance of units (denominator units - 1).
        growth: of bets on e (see `most`), means over samples, ``(BETS, ...)``.
        growth_of_null: of bets on -u, means over units.
        scale: `GROSS` mean nulls, as the first look has them: what bets are sized by (its samples are bet on too, the one thing that is
            not known beforehand).
        size: samples of a unit.
    """

    units: Array
    e: Array
    u: Array
    ee: Array
    eu: Array
    uu: Array
    growth: Array
    growth_of_null: Array
    scale: Array
    size: Array

    def at(self, units: Array | float) -> Self:
        """The same means and variances, had they been seen in so many units."""
        return self._replace(units=np.asarray(units, dtype=np.float64))


def seen(e: Array, u: Array, looks: Array) -> Seen:
    """What has been seen at each look, ``(..., looks)``.

    Args:
        e: of samples, ``(..., units, samples of a unit)``.
        u: nulls of units, ``(..., units)``.
        looks: how many of the units each look has seen, rising, ``(looks,)``.
    """
    at = np.asarray(looks) - 1
    mean = e.mean(-1)
    scale = GROSS * u[..., : looks[0]].mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A lost bet is minus infinity, and the others go on; a null may be 0.
        x, y = e / scale[..., None], u / scale
        growth = [_running(np.log1p(-np.minimum(size * x, 1)).mean(-1), at) for size in SIZES]
        growth_of_null = [_running(np.log1p(size * y), at) for size in NULL_SIZES]
    # Centred, because differences of large equal terms would cost digits.
    p, q = (each - each.mean(-1, keepdims=True) for each in (mean, u))
    centred = [_running(each, at) for each in (p, q)]
    with np.errstate(divide="ignore", invalid="ignore"):  # one unit has no variance
        bessel = (at + 1.0) / at
        spread = [
            (_running(x * y, at) - m * n) * bessel
            for (x, m), (y, n) in combinations_with_replacement(zip((p, q), centred, strict=True), 2)
        ]
    means = [_running(each, at) for each in (mean, u)]
    n, e_, u_, ee, eu, uu, scale, size = np.broadcast_arrays(at + 1.0, *means, *spread, scale, float(e.shape[-1]))
    return Seen(n, e_, u_, ee, eu, uu, np.stack(growth), np.stack(growth_of_null), scale, size)


def _running(values: Array, at: Array) -> Array:
    """Means along the last axis up to those places."""
    return values.cumsum(-1)[..., at] / (at + 1.0)


def radius(units: Array, error: float) -> Array:
    """Half the width of the confidence sequence of a mean, in standard deviations of a unit, with ``error`` at either end.

    The t statistics T for which the t-test's e-value, with a normal prior of variance tau^2 on mean / sd, stays below 1 / (2 error):

        (1 + n tau^2)^(-1/2) [(1 + T^2 / (n - 1)) / (1 + T^2 / ((n - 1) (1 + n tau^2)))]^(n / 2)

    It is anytime-valid at every n for normal units of unknown variance (Perez-Ortiz, Lardy, de Heide & Grunwald, "E-statistics, group
    invariance and anytime-valid testing", Annals of Statistics 2024), and tends to the asymptotic confidence sequence of Waudby-Smith,
    Arbour, Sinha, Kennedy & Ramdas ("Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024),
    which holds for any units and whose choice of tau^2 this is: narrowest at `TUNED` units. Infinite for few units.
    """
    level = 2 * error
    tau2 = (-2 * np.log(level) + np.log(-2 * np.log(level)) + 1) / TUNED
    n, k = np.asarray(units, dtype=np.float64), 1 + np.asarray(units) * tau2
    most = (np.sqrt(k) / level) ** (2 / n)
    told = most < k
    return np.where(told, np.sqrt((n - 1) / n * (most - 1) / np.where(told, 1 - most / k, 1.0)), np.inf)


def ratio(seen: Seen, error: float) -> Interval:
    """E e / E u with its anytime-valid interval, ``(...)`` as ``seen``; infinite ends where nothing is known of that side.

    Args:
        error: the most that the probability may be that the interval ever lies above E e / E u, and the same for below.
    """
    known = seen.u > COLLAPSED
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.where(known, seen.e / seen.u, np.nan)
        top = most(seen.growth, SIZES, seen.units * seen.size, error * (1 - _OF_NULL))
        bottom = -most(seen.growth_of_null, -NULL_SIZES, seen.units, error * _OF_NULL)
        high = np.where(known & (bottom > 0), top / bottom, np.inf)
        # A negative excess is only known to be none. What the bets count in part has been seen in full.
        high = np.where(high < 0, np.fmax(estimate, 0.0), np.fmax(high, estimate))
    return Interval(estimate, least(seen, radius(seen.units, error)), high)


def most(growth: Array, sizes: NDArray[Any], samples: Array, error: float) -> Array:
    """The most that the mean of x may be, of all looks, with an error of at most ``error``; x counts as at most 1 / b.

    (1 - b x) / (1 - b m) has mean 1 if m is the mean of x, so that its product over samples exceeds 1 / error with a probability of at
    most ``error``, ever (Ville 1939; Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024).
    Solved for m, the geometric mean G of 1 - b x gives m <= (1 - G error^(1/n)) / b; of several b, each with its part of the error, the
    least.

    Args:
        growth: log G of each b, ``(BETS, ...)``.
        sizes: b of each bet, ``(BETS,)``. All negative: bets on -x, and minus what the mean of x is at least comes back; x >= 0 then, and
            nothing else is assumed.
        samples: n, independent of each other.
    """
    each = [
        -np.expm1(grown + np.log(error * part) / samples) / abs(size)
        for grown, size, part in zip(growth, sizes, 0.5 ** np.arange(1, BETS + 1), strict=True)
    ]
    return np.min(each, axis=0)


def least(seen: Seen, times: Array) -> Array:
    """The least r with ``e - r u <= times sd(e - r u)``: every smaller one is too small. Minus infinity where there is none.

    It is the smaller root of (u^2 - c^2 uu) r^2 - 2 (u e - c^2 eu) r + e^2 - c^2 ee; where the null is not told from 0 but e is, so that
    the parabola is open below, the larger one.
    """
    with np.errstate(invalid="ignore"):
        a, b, c = (
            m - times**2 * s for m, s in ((seen.u**2, seen.uu), (seen.u * seen.e, seen.eu), (seen.e**2, seen.ee))
        )
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        told = np.isfinite(times) & (seen.u > COLLAPSED) & ((a > 0) | ((a < 0) & (c > 0) & (seen.e > 0)))
        return np.where(told, (b - root) / np.where(told, a, 1.0), -np.inf)
