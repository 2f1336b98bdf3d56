"""A slice of `faults`: whatever happens to a file, its numbers are right or it is named. ``tests/helpers/faults.py`` runs thousands."""

import os

import faults
import pytest


@pytest.fixture(scope="module")
def counts():
    return faults.run_faults(150, seed=2)


def test_no_fault_ends_in_a_wrong_number_or_a_traceback(counts):
    assert faults.bad(counts) == {}
    assert sum(counts.values()) == 150


def test_every_kind_of_file_meets_every_kind_of_fault(counts):
    met = {fault for _, fault, _ in counts}
    assert met == set(faults.FAULTS) - ({"unreadable"} if not os.path.exists("/proc/self/mem") else set())
    assert len({name for name, _, _ in counts}) == 12
    assert not [key for key in counts if key[2] == "made again" and key[0] not in ("rows", "log, unfinished")]


def test_a_finished_run_is_never_lost_when_it_is_asked_for_again():
    assert faults.bad(faults.train_over_faults(4, seed=1)) == {}


@pytest.mark.slow
def test_a_thousand_faults():
    assert faults.bad(faults.run_faults(1000, seed=0) + faults.train_over_faults(60, seed=0)) == {}


@pytest.mark.parametrize("change", ["number", "order", "type"])
def test_readings_that_differ_are_told_apart(change):
    whole = {"a": [1.0, float("nan")], "b": (1, "x")}
    other = {
        "number": {"a": [1.5, float("nan")], "b": (1, "x")},
        "order": {"b": (1, "x"), "a": [1.0, float("nan")]},
        "type": {"a": [1.0, float("nan")], "b": [1, "x"]},
    }[change]
    assert faults.same(whole, dict(whole))
    assert not faults.same(whole, other)
