"""The interval against brute force: every r tried, the e-value evaluated, sums taken sample by sample."""

import numpy as np
import pytest

from consistency_lab.gates.sequence import (
    BETS,
    GROSS,
    NULL_SIZES,
    SIZES,
    TUNED,
    UNIT,
    least,
    most,
    radius,
    ratio,
    seen,
)

RNG = np.random.default_rng(5)
DISTANCES = RNG.gamma(2.0, 0.03, (40, UNIT))
NULLS = RNG.normal(1.0, 0.2, 40)
LOOKS = np.array([9, 20, 33, 40])


def test_what_was_seen_is_what_numpy_says_of_each_part():
    what = seen(DISTANCES, NULLS, LOOKS)
    for place, units in enumerate(LOOKS):
        e, u = DISTANCES[:units].mean(1), NULLS[:units]
        assert [what.e[place], what.u[place]] == pytest.approx([e.mean(), u.mean()])
        covariance = np.cov(e, u)
        assert [what.ee[place], what.eu[place], what.uu[place]] == pytest.approx(
            [covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        )
        x, y = (each[:units] / (GROSS * NULLS[:9].mean()) for each in (DISTANCES, NULLS))
        assert what.growth[:, place] == pytest.approx([np.log(1 - np.minimum(b * x, 1)).mean() for b in SIZES])
        assert what.growth_of_null[:, place] == pytest.approx([np.log(1 + b * y).mean() for b in NULL_SIZES])


def test_variances_keep_their_digits_beside_a_large_mean():
    what, moved = (seen(DISTANCES + shift, NULLS, LOOKS) for shift in (0, 1e6))
    assert moved.ee == pytest.approx(what.ee, rel=1e-6)


def test_leading_dimensions_are_gates_of_their_own():
    other = RNG.gamma(2.0, 0.05, DISTANCES.shape)
    both = ratio(seen(np.stack([DISTANCES, other]), np.stack([NULLS, NULLS]), LOOKS), 0.025)
    for row, distances in enumerate((DISTANCES, other)):
        alone = ratio(seen(distances, NULLS, LOOKS), 0.025)
        for part, whole in zip(alone, both, strict=True):
            assert whole[row] == pytest.approx(part)


GRID = np.linspace(-1, 3, 400_001)


def too_small(what, place, times):
    """The ratios of the grid that are told to be too small: e - r u is further above 0 than so many standard deviations."""
    e, u, ee, eu, uu = (part[place] for part in (what.e, what.u, what.ee, what.eu, what.uu))
    return GRID[e - GRID * u > times * np.sqrt(ee - 2 * GRID * eu + GRID**2 * uu)]


@pytest.mark.parametrize("times", [0.1, 0.5, 1.0])
def test_the_lower_end_is_what_a_search_over_all_ratios_finds(times):
    what = seen(DISTANCES, NULLS, LOOKS)
    low = least(what, np.full(len(LOOKS), times))
    for place in range(len(LOOKS)):
        assert low[place] == pytest.approx(too_small(what, place, times)[-1], abs=2e-5)


def test_a_null_that_is_not_told_from_nothing_still_bounds_the_ratio_below():
    """Far above nothing times an uncertain null: the parabola is open below, and the end is its larger root."""
    uncertain = np.where(np.arange(40) % 5, 0.05, 4.0)
    what = seen(DISTANCES + 0.5, uncertain, LOOKS)
    low = least(what, np.full(len(LOOKS), 1.0))
    assert (what.u**2 < what.uu).all()
    for place in range(len(LOOKS)):
        small = too_small(what, place, 1.0)
        assert low[place] == pytest.approx(small[-1], abs=2e-5)
        assert np.diff(small).max() < 2e-5  # and all below
    hazy = seen(DISTANCES * np.where(np.arange(40) % 7, 0.001, 9.0)[:, None], uncertain, LOOKS)
    assert (least(hazy, np.full(len(LOOKS), 1.0)) == -np.inf).all()


def e_value(t, n, tau2):
    """The t-test's, with a normal prior on mean / sd, integrated over sd under the right Haar prior."""
    k = 1 + n * tau2
    return k**-0.5 * ((1 + t**2 / (n - 1)) / (1 + t**2 / ((n - 1) * k))) ** (n / 2)


@pytest.mark.parametrize("error", [0.025, 0.005])
def test_the_radius_is_where_the_t_tests_e_value_reaches_one_over_the_level(error):
    level = 2 * error
    tau2 = (-2 * np.log(level) + np.log(-2 * np.log(level)) + 1) / TUNED
    for n in (12, 40, 256, 4096):
        t = radius(np.array(n), error) * np.sqrt(n)
        assert e_value(t, n, tau2) == pytest.approx(1 / level, rel=1e-6)
    assert np.isinf(radius(np.array([1, 2, 4]), error)).all()


def test_the_e_value_is_the_ratio_of_integrals_that_it_is_said_to_be():
    """Of the density of normal units, over 1 / sd d sd and, above, over a mean of variance tau^2 sd^2."""
    x, tau2 = RNG.normal(0.4, 1, 12), 0.3
    n, sd, mean = len(x), np.exp(np.linspace(-4, 4, 2001)), np.linspace(-8, 8, 4001)
    squares = ((x - mean[:, None]) ** 2).sum(1)
    below = (sd**-n * np.exp(-(x**2).sum() / (2 * sd**2))).sum()
    above = 0.0
    for s in sd:
        prior = np.exp(-(mean**2) / (2 * tau2)) / np.sqrt(2 * np.pi * tau2) * (mean[1] - mean[0])
        shifted = ((x - s * mean[:, None]) ** 2).sum(1)
        above += (s**-n * np.exp(-shifted / (2 * s**2)) * prior).sum()
    assert squares.shape == mean.shape
    t = x.mean() / x.std(ddof=1) * np.sqrt(n)
    assert e_value(t, n, tau2) == pytest.approx(above / below, rel=1e-4)


def test_the_radius_tends_to_the_asymptotic_confidence_sequence():
    error, n = 0.025, 10**6
    tau2 = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05)) + 1) / TUNED
    theirs = np.sqrt(2 * (n * tau2 + 1) / (n**2 * tau2) * np.log(np.sqrt(n * tau2 + 1) / 0.05))
    assert radius(np.array(n), error) == pytest.approx(theirs, rel=1e-4)


def won(x, sizes, mean, error):
    """Whether some bet against that mean has won enough, of samples ``(n,)``; a negative size bets on -x and that it is larger."""
    gains = [
        np.log(np.maximum(1 - b * x, 0) / (1 - b * mean)).sum() + np.log(0.5 ** (j + 1)) for j, b in enumerate(sizes)
    ]
    return max(gains) >= np.log(1 / error)


def test_bets_exclude_just_the_means_against_which_they_have_won_enough():
    what, error, scale = seen(DISTANCES, NULLS, LOOKS), 0.02, GROSS * NULLS[: LOOKS[0]].mean()
    high = most(what.growth, SIZES, what.units * UNIT, error)
    low = -most(what.growth_of_null, -NULL_SIZES, what.units, error)
    for place, units in enumerate(LOOKS):
        x = DISTANCES[:units].reshape(-1) / scale
        assert won(x, SIZES, high[place] * (1 + 1e-6), error)
        assert not won(x, SIZES, high[place] * (1 - 1e-6), error)
        y = NULLS[:units] / scale
        assert won(y, -NULL_SIZES, low[place] * (1 - 1e-6), error)
        assert not won(y, -NULL_SIZES, low[place] * (1 + 1e-6), error)
        assert low[place] < y.mean()
        assert high[place] > x.mean()


def test_the_upper_end_is_the_most_of_the_distance_over_the_least_of_the_null():
    what = seen(DISTANCES, NULLS, LOOKS)
    top, bottom = (
        most(what.growth, SIZES, what.units * UNIT, 0.8 * 0.025),
        -most(what.growth_of_null, -NULL_SIZES, what.units, 0.2 * 0.025),
    )
    assert ratio(what, 0.025).high == pytest.approx(np.where(bottom > 0, top / bottom, np.inf))


def test_the_shares_of_all_bets_make_no_more_than_one():
    assert sum(0.5 ** np.arange(1, BETS + 1)) < 1
    assert SIZES.max() <= 1


def test_a_lost_bet_leaves_the_smaller_ones():
    failed = DISTANCES.copy()
    failed[3, 1] = 100.0
    what = seen(failed, NULLS, LOOKS)
    assert (what.growth[0] == -np.inf).all()
    with_it, without = (ratio(each, 0.02).high for each in (what, seen(DISTANCES, NULLS, LOOKS)))
    assert np.isfinite(with_it[1:]).all()
    assert (with_it > without)[1:].all()
    assert (with_it >= what.e / what.u).all()  # 50 nulls off, and counted in full


def test_identical_images_are_not_believed_at_once():
    what = seen(np.zeros((60, UNIT)), NULLS.repeat(2)[:60], np.array([2, 30, 60]))
    estimate, low, high = ratio(what, 0.025)
    assert (estimate == 0).all()
    assert high[0] == np.inf  # the null of two units is not known
    assert (np.diff(high[1:]) < 0).all()
    assert (high[1:] > 0).all()
    assert (low[1:] == 0).all()


def test_images_that_do_not_depend_on_the_noise_have_no_ratio():
    estimate, low, high = ratio(seen(DISTANCES, 0 * NULLS, LOOKS), 0.025)
    assert np.isnan(estimate).all()
    assert (low == -np.inf).all()
    assert (high == np.inf).all()
