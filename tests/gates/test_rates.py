"""Error rates of a thousand simulated gates a law, each with a look, and a chance to stop, after every unit of four samples."""

import re
from pathlib import Path

import numpy as np
import pytest
from gate_laws import LAWS, draw, gates

from consistency_lab.gates.decision import FAIL, OPEN, PASS
from consistency_lab.gates.sequence import least, radius, ratio, seen

BOUND = 0.05  # of the ratio: a score of .95
CHANCE = 0.025 + 3 * np.sqrt(0.025 * 0.975 / 1000)  # the stated rate as a thousand gates may show it


@pytest.mark.parametrize("law", LAWS)
def test_at_the_bound_no_more_than_the_stated_share_is_wrong(law):
    """Exactly at the bound a pass is wrong, and so, a hair above it, is a fail: each end has its own rate."""
    decisions, _ = gates(law, BOUND, BOUND)
    assert (decisions == PASS).mean() <= 0.025
    assert (decisions == FAIL).mean() <= CHANCE
    assert (decisions == OPEN).mean() > 0.9


@pytest.mark.parametrize("law", LAWS)
def test_far_below_the_bound_it_fails_and_well_above_it_passes(law):
    decisions, samples = gates(law, 0.5, BOUND, seed=1)
    assert (decisions == FAIL).mean() > 0.99
    assert np.median(samples) < 130
    decisions, samples = gates(law, 0.001, BOUND, seed=2)
    assert (decisions == PASS).mean() > 0.95
    assert np.median(samples) < 330


@pytest.mark.parametrize("mean", [0.02, 0.04, 0.055, 0.07])
@pytest.mark.parametrize("law", LAWS)
def test_near_the_bound_wrong_decisions_stay_rare(law, mean):
    decisions, _ = gates(law, mean, BOUND, count=400, units=160, seed=3, step=2)
    wrong = PASS if mean > BOUND else FAIL
    assert (decisions == wrong).mean() <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


@pytest.mark.parametrize("mean", [0.02, 0.3])
@pytest.mark.parametrize("law", LAWS)
def test_the_interval_ever_misses_the_ratio_no_more_often_than_stated(law, mean):
    """At any of 120 looks, on either side."""
    distances, nulls = draw(law, mean, 600, 128, np.random.default_rng([7, LAWS.index(law)]))
    _, low, high = ratio(seen(distances, nulls, np.arange(8, 129)), 0.025)
    chance = 0.025 + 3 * np.sqrt(0.025 * 0.975 / 600)
    assert (low > mean).any(1).mean() <= chance
    assert (high < mean).any(1).mean() <= chance


def test_means_and_variances_alone_would_pass_failures_that_were_not_seen():
    """What bets are for: the upper end as the lower one is made, at the same looks and level."""
    distances, nulls = draw("failures", BOUND, 1000, 64, np.random.default_rng(0))
    what = seen(distances, nulls, np.arange(12, 65))
    alone = -least(what._replace(e=-what.e, eu=-what.eu), radius(what.units, 0.025))
    alone = np.where((what.ee == 0) & (what.e == 0), 0.0, alone)  # none seen: no variance, and nothing that it could be
    assert (alone <= BOUND).any(1).mean() > 0.1
    assert (gates("failures", BOUND, BOUND, units=64)[0] == PASS).mean() < 0.01


def test_what_it_assumes_it_needs():
    """As the module says: one image in 80 four nulls off passes too often, and a null of which the mean is not seen fails too often."""
    assert 0.02 < (gates("beyond", BOUND, BOUND)[0] == PASS).mean() < 0.1
    assert 0.15 < (gates("heavy null", BOUND, BOUND)[0] == FAIL).mean() < 0.35


def test_a_second_run_is_held_to_the_same_rate():
    """The excess over a second run, at the margin exactly: distances and the second run's are close to each other and far from 0."""
    rng = np.random.default_rng(4)
    again, nulls = draw("log-normal", 0.1, 1000, 256, rng)
    excess, _ = draw("normal", 0.02, 1000, 256, rng)
    noisy = excess + 0.5 * (again - again[::-1])  # the reference varies between its own runs
    _, low, high = ratio(seen(noisy, nulls, np.arange(8, 257)), 0.025)
    assert (high <= 0.02).any(1).mean() <= 0.025
    assert (low > 0.02).any(1).mean() <= CHANCE


PAGE = Path(__file__).parents[2] / "docs" / "did-my-optimisation-change-the-images.md"
ROWS = re.findall(
    r"^\| (\.\d+) \| (pass|fail) \| ([\d,]+) \| ([\d,]+) \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE
)


@pytest.mark.parametrize(("score", "decision", "median", "nine_in_ten"), ROWS)
def test_the_page_says_how_many_samples_it_takes(score, decision, median, nine_in_ten):
    """As `docs/make_gate_figure.py` counts them, here with fewer gates."""
    decisions, samples = gates("log-normal", 1 - float(score), 1 - 0.95, count=300, units=600, seed=6, step=8)
    assert (decisions == decision).mean() > 0.9
    told = np.quantile(samples, (0.5, 0.9))
    assert told == pytest.approx([float(each.replace(",", "")) for each in (median, nine_in_ten)], rel=0.15, abs=32)


def test_the_page_has_its_table():
    assert len(ROWS) == 7
