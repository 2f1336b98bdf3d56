"""Pass, fail, cannot tell; how many more samples."""

import itertools

import numpy as np
import pytest
from gate_laws import draw

from consistency_lab.gates.decision import FAIL, OPEN, PASS, decide, more_samples, together
from consistency_lab.gates.sequence import UNIT, Seen, ratio, seen


def test_the_decision_is_what_holds_for_every_ratio_of_the_interval():
    points = [-np.inf, 0.0, 0.049, 0.05, 0.051, 1.0, np.inf]
    for low, high in itertools.combinations_with_replacement(points, 2):
        grid = [each for each in points if low <= each <= high]
        expected = PASS if all(x <= 0.05 for x in grid) else FAIL if all(x > 0.05 for x in grid) else OPEN
        assert decide(low, high, 0.05) == expected, (low, high)


def test_of_several_one_failure_fails_and_all_must_pass():
    for found in itertools.product((PASS, FAIL, OPEN), repeat=3):
        expected = FAIL if FAIL in found else PASS if set(found) == {PASS} else OPEN
        assert together(found) == expected


def at_last(law, mean, units):
    distances, nulls = draw(law, mean, 1, units, np.random.default_rng(1))
    return Seen(*(part[..., 0] for part in seen(distances[0], nulls[0], np.array([units]))))


@pytest.mark.parametrize(
    ("law", "mean"), [("normal", 0.01), ("log-normal", 0.03), ("failures", 0.025), ("normal", 0.056)]
)
def test_more_samples_is_the_first_number_that_would_tell(law, mean):
    what, most, error = at_last(law, mean, 20), 0.05, 0.025
    brute = next(units for units in itertools.count(20) if _tells(what, units, most, error))
    assert more_samples(what, most, error) == (brute - 20) * UNIT > 0


def _tells(what, units, most, error):
    _, low, high = ratio(what.at(units), error)
    return decide(low, high, most) != OPEN


def test_a_gate_that_can_tell_needs_none():
    assert more_samples(at_last("normal", 0.5, 40), 0.05, 0.025) == 0


def test_a_candidate_at_the_bound_is_promised_nothing():
    what = at_last("normal", 0.05, 40)
    assert np.isnan(more_samples(what, float(what.e / what.u), 0.025))


def test_one_unit_is_told_what_a_perfect_candidate_would_need():
    what = at_last("log-normal", 0.03, 1)
    more = more_samples(what, 0.05, 0.025)
    assert more > 150
    perfect = at_last("normal", 0.0, 1)
    assert more == more_samples(perfect, 0.05, 0.025)
    assert more_samples(what, 0.5, 0.025) < more
