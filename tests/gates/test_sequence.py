"""The interval against brute force: every r tried, the e-value evaluated, sums taken sample by sample."""

import numpy as np
import pytest

from consistency_lab.gates.sequence import (
    BETS,
    GROSS,
    SIZES,
    TUNED,
    UNIT,
    fieller,
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
        x = np.minimum(DISTANCES[:units] / (GROSS * NULLS[:9].mean()), 1)
        assert what.growth[:, place] == pytest.approx([np.log(1 - b * x).mean() for b in SIZES])


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


@pytest.mark.parametrize("times", [0.1, 0.5, 1.5])
def test_the_ratio_is_inverted_as_a_search_over_all_ratios_does(times):
    what = seen(DISTANCES, NULLS, LOOKS)
    low, high = fieller(what, np.full(len(LOOKS), times))
    grid = np.linspace(-1, 1, 400_001)
    for place in range(len(LOOKS)):
        e, u, ee, eu, uu = (part[place] for part in (what.e, what.u, what.ee, what.eu, what.uu))
        inside = grid[np.abs(e - grid * u) <= times * np.sqrt(ee - 2 * grid * eu + grid**2 * uu)]
        assert [low[place], high[place]] == pytest.approx([inside[0], inside[-1]], abs=1e-5)


def test_a_null_that_is_not_told_from_nothing_bounds_no_ratio():
    what = seen(DISTANCES, NULLS - NULLS.mean() + 0.01, LOOKS)
    low, high = fieller(what, np.full(len(LOOKS), 1.0))
    assert (low == -np.inf).all()
    assert (high == np.inf).all()
    assert (ratio(what, 0.025).high == np.inf).all()


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


def test_the_bet_excludes_just_the_means_against_which_it_has_won_enough():
    what, error = seen(DISTANCES, NULLS, LOOKS), 0.02
    bound = most(what, error)
    for place, units in enumerate(LOOKS):
        scale = GROSS * NULLS[: LOOKS[0]].mean()
        x = np.minimum(DISTANCES[:units].reshape(-1) / scale, 1)

        def won(mean, x=x):
            gains = [np.log((1 - b * x) / (1 - b * mean)).sum() + np.log(0.5 ** (j + 1)) for j, b in enumerate(SIZES)]
            return max(gains) >= np.log(1 / error)

        assert won(bound[place] / scale * (1 + 1e-6))
        assert not won(bound[place] / scale * (1 - 1e-6))


def test_the_shares_of_all_bets_make_no_more_than_one():
    assert sum(0.5 ** np.arange(1, BETS + 1)) < 1
    assert SIZES.max() <= 1


def test_a_lost_bet_leaves_the_smaller_ones():
    failed = DISTANCES.copy()
    failed[3, 1] = 100.0
    what = seen(failed, NULLS, LOOKS)
    assert (what.growth[0] == -np.inf).all()
    assert np.isfinite(most(what, 0.02)).all()
    assert (most(what, 0.02) > most(seen(DISTANCES, NULLS, LOOKS), 0.02)).all()


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
