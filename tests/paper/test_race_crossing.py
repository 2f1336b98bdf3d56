import numpy as np
import pytest
from scipy import stats

from consistency_lab.paper.race.crossing import Crossing, arrival, first_sustained, haste, speedup, typical

STEPS = [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("losses", "window", "expected"),
    [
        ([5, 4, 2, 1, 1], 10, Crossing(25.0, False)),  # half way from 4 to 2
        ([5, 4, 2, 4, 1], 10, Crossing(40 + 10 / 3, False)),  # the first touch does not last
        ([5, 4, 2, 4, 1], 5, Crossing(25.0, False)),  # ... and with a shorter window it does
        ([5, 4, 3, 3, 3], 20, Crossing(30.0, False)),  # at the target is at the target
        ([2, 2, 2, 2, 2], 20, Crossing(10.0, False)),  # before the first record
        ([5, 5, 5, 5, 2], 20, Crossing(40 + 20 / 3, False)),  # at the end of a run that ends before the window does
        ([5, 5, 5, 5, 5], 20, Crossing(50.0, True)),
        ([5, 4, 2, np.nan, np.nan], 20, Crossing(50.0, True)),
        ([5, np.nan, 2, 2, 2], 20, Crossing(30.0, False)),
    ],
)
def test_first_sustained_crossing(losses, window, expected):
    at, censored = first_sustained(STEPS, losses, 3.0, window)
    assert at == pytest.approx(expected.at)
    assert censored == expected.censored


def test_a_run_that_diverged_or_has_no_record_arrived_nowhere():
    losses = [5, 4, 2, 1, 1]
    assert arrival(STEPS, losses, 3.0, 10, 60, False) == first_sustained(STEPS, losses, 3.0, 10)
    assert arrival(STEPS, losses, 3.0, 10, 60, True) == Crossing(60.0, True)
    assert arrival([], [], 3.0, 10, 60, False) == Crossing(60.0, True)


def test_a_contestant_raced_against_itself_gives_exactly_one():
    own = [Crossing(at, False) for at in (313.7, 290.1, 401.9)]
    assert speedup(own, own) == (1.0, 1.0, 1.0, "", 3, 0)


def test_speedup_is_a_geometric_mean_with_a_t_interval():
    control = [Crossing(at, False) for at in (400.0, 420.0, 390.0)]
    contestant = [Crossing(at, False) for at in (200.0, 140.0, 130.0)]
    found = speedup(control, contestant)
    logs = np.log([2.0, 3.0, 3.0])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    assert found[:3] == pytest.approx(tuple(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])))
    assert speedup(control, contestant, extra=60.0).estimate == pytest.approx(
        np.exp(np.mean(np.log([400 / 260, 420 / 200, 390 / 190])))
    )
    alone = speedup(control[:1], contestant[:1])
    assert alone.estimate == pytest.approx(2.0)
    assert np.isnan([alone.low, alone.high]).all()  # one seed has no interval


def test_the_interval_covers():
    rng = np.random.default_rng(0)
    hits, trials = 0, 2000
    for _ in range(trials):
        control, contestant = np.exp(rng.normal(np.log([[600.0], [300.0]]), 0.1, (2, 5)))
        found = speedup([Crossing(a, False) for a in control], [Crossing(b, False) for b in contestant])
        hits += found.low <= 2.0 <= found.high
    assert 0.935 < hits / trials < 0.965


def test_censored_runs_leave_bounds():
    arrived, late = Crossing(100.0, False), Crossing(500.0, True)
    at_least = speedup([late, arrived], [arrived, arrived])
    assert (at_least.bound, at_least.censored) == ("at least", 1)
    assert at_least.estimate == pytest.approx(np.sqrt(5.0))
    at_most = speedup([arrived, arrived], [late, arrived])
    assert (at_most.bound, at_most.estimate) == ("at most", pytest.approx(np.sqrt(0.2)))
    unknown = speedup([late, arrived], [arrived, late])
    assert (unknown.bound, unknown.censored) == ("unknown", 2)
    for found in (at_least, at_most, unknown):
        assert np.isnan([found.low, found.high]).all()
    assert np.isnan(unknown.estimate)
    assert typical([late, arrived]) == (1, pytest.approx(np.sqrt(500 * 100)))


def test_the_fastest_is_who_arrives():
    arrived, late, short = Crossing(400.0, False), Crossing(500.0, True), Crossing(100.0, True)
    slow = Crossing(450.0, False)
    entries = {"both": [slow, slow], "one": [arrived, late], "none": [late, late], "short": [short, short]}
    assert sorted(entries, key=lambda name: haste(entries[name])) == ["both", "one", "none", "short"]
    assert haste([arrived, late]) == (1, pytest.approx(400.0))
