"""A ratio E e / E u with an interval that may be looked at as often as one likes, after every block of samples: the interval of a gate.

e is what is to be small (the candidate's distance to its reference, or what that is above the distance of the reference's own second
run), u the null; a score is 1 - E e / E u. Samples come in *units* of `UNIT` with the null taken within the unit, so that units are
independent and alike although a null has every sample in many of its pairs.

Both ends are anytime-valid: they hold at all looks at once, so a gate may stop at the first look that can tell.

* The interval itself is a confidence sequence of the mean of e - r u over units (`radius`), inverted for r as Fieller (1954) does for one
  look: all r with |mean e - r mean u| <= radius sd(e - r u).
* That one believes what it has seen. An image in twenty that is ruined costs .05 of a score, and forty samples without one have seen
  nothing of it: alone, such an interval passed 53 of 100 candidates that were exactly at the bound. Its upper end is therefore never
  below that of a bet (`most`), which holds at every sample size and for every law of e, if no image is further from its own than `GROSS`
  times the null. It asks for some 10 / (1 - bound) samples of a perfect candidate. What lies beyond counts as `GROSS` nulls in the bet and
  in full in the first part, which has to have seen it.

Simulated with a look at every unit, error rate of either end .025 (tests/gates/test_rates.py): candidates at the bound of .95 pass wrongly
in at most .006 and fail wrongly in at most .026 of gates, for normal, log-normal (1 and 1.5) and correlated distances, and for one in 4,
20 or 40 images that is ruined. Beyond the assumption, one in 80 that is 4 nulls off, .10 pass.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple, Self

import numpy as np

from consistency_lab.intervals import Array, Interval
from consistency_lab.similarity.statistics import COLLAPSED

UNIT = 4  # samples, of which every pair is in the null
TUNED = 64  # units at which the interval is narrowest for its level
GROSS = 2.0  # nulls: an image twice as far as one of other noise. Black images and pure noise are 1.5 to 2.5 nulls off in squared error
BETS = 8
SIZES = 0.5 ** np.arange(BETS)  # of bets, each half as large as the last one and trusted half as much
_OF_NULL = 0.2  # share of an error rate that the bet leaves to the null, which is known well


class Seen(NamedTuple):
    """What has been seen at some looks: sums over it, of any shape ``(...)``, from which intervals follow.

    Attributes:
        units: their number.
        e, u: means over units.
        ee, eu, uu: variances and covariance of units (denominator units - 1).
        growth: mean over samples of log(1 - b x) for the `SIZES` b of bets, ``(BETS, ...)``; x is e in `GROSS` nulls, at most 1.
        scale: `GROSS` mean nulls, as the first look has them.
    """

    units: Array
    e: Array
    u: Array
    ee: Array
    eu: Array
    uu: Array
    growth: Array
    scale: Array

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
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a lost bet is minus infinity, and the others go on; a null may be 0
        x = np.minimum(e / scale[..., None], 1.0)
        growth = np.stack([_running(np.log1p(-size * x).mean(-1), at) for size in SIZES])
    p, q = (
        each - each.mean(-1, keepdims=True) for each in (mean, u)
    )  # differences of large equal terms would cost digits
    centred = [_running(each, at) for each in (p, q)]
    with np.errstate(divide="ignore", invalid="ignore"):  # one unit has no variance
        bessel = (at + 1.0) / at
        spread = [
            (_running(x * y, at) - m * n) * bessel
            for (x, m), (y, n) in combinations_with_replacement(zip((p, q), centred, strict=True), 2)
        ]
    means = [_running(each, at) for each in (mean, u)]
    units, e, u, ee, eu, uu, scale = np.broadcast_arrays(at + 1.0, *means, *spread, scale)
    return Seen(units, e, u, ee, eu, uu, growth, scale)


def _running(values: Array, at: Array) -> Array:
    """Means along the last axis up to those places."""
    return values.cumsum(-1)[..., at] / (at + 1.0)


def radius(units: Array, error: float) -> Array:
    """Half the width of the confidence sequence of a mean, in standard deviations of a unit, with ``error`` at either end.

    The t statistics T for which the t-test's e-value, with a normal prior of variance tau^2 on mean / sd, stays below 1 / (2 error):

        (1 + n tau^2)^(-1/2) [(1 + T^2 / (n - 1)) / (1 + T^2 / ((n - 1) (1 + n tau^2)))]^(n / 2)

    It is anytime-valid at every n for normal units of unknown variance (Perez-Ortiz, Lardy, de Heide & Grunwald, "E-statistics, group
    invariance and anytime-valid testing", Annals of Statistics 2024), and tends to the asymptotic confidence sequence of Waudby-Smith et
    al. (their equation 11), which holds for any units. tau^2 is theirs (equation 14): narrowest at `TUNED` units. Infinite for few.
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
    low, high = fieller(seen, radius(seen.units, error))
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.where(seen.u > COLLAPSED, seen.e / seen.u, np.nan)
        bet = most(seen, (1 - _OF_NULL) * error)
        half = radius(seen.units, _OF_NULL * error) * np.sqrt(np.maximum(seen.uu, 0.0))
        null = np.where(bet > 0, seen.u - half, seen.u + half)  # whichever makes more of the bet
        bound = np.where(null > 0, bet / null, np.inf)
    return Interval(estimate, low, np.maximum(high, np.where(np.isnan(bound), np.inf, bound)))


def fieller(seen: Seen, times: Array) -> tuple[Array, Array]:
    """All r with ``|e - r u| <= times sd(e - r u)``: the ends of that set, infinite where it has none.

    The set is where (u^2 - c^2 uu) r^2 - 2 (u e - c^2 eu) r + e^2 - c^2 ee <= 0: an interval, if the null is told from 0.
    """
    with np.errstate(invalid="ignore"):
        a, b, c = (
            m - times**2 * s for m, s in ((seen.u**2, seen.uu), (seen.u * seen.e, seen.eu), (seen.e**2, seen.ee))
        )
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        told = np.isfinite(times) & (a > 0) & (seen.u > COLLAPSED)
        ends = ((b + sign * root) / np.where(told, a, 1.0) for sign in (-1, 1))
        low, high = (np.where(told, end, sign * np.inf) for end, sign in zip(ends, (-1, 1), strict=True))
    return low, high


def most(seen: Seen, error: float) -> Array:
    """The most that E e may be, e counted as at most `GROSS` nulls: of all looks, with an error of at most ``error``.

    (1 - b x) / (1 - b m) has mean 1 for the x in (-inf, 1] of a sample if m is its mean, so that the product over samples exceeds 1 / error
    with a probability of at most ``error``, ever (Ville 1939; Waudby-Smith & Ramdas, "Estimating means of bounded random variables by
    betting", JRSS B 2024). Solved for m, the geometric mean G of 1 - b x gives m <= (1 - G error^(1/n)) / b; of several sizes b, each with
    its part of the error, the least. Samples of a unit are independent too, so n counts samples.
    """
    n = seen.units * UNIT
    each = [
        -np.expm1(growth + np.log(error * part) / n) / size
        for growth, size, part in zip(seen.growth, SIZES, 0.5 ** np.arange(1, BETS + 1), strict=True)
    ]
    return seen.scale * np.min(each, axis=0)
