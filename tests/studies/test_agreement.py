import numpy as np
import pytest
import xarray as xr

from consistency_lab.studies.agreement import DIFFERS, EQUAL, ROUNDED, WITHIN, agreements, made_differently


def result(**changes):
    values = np.random.default_rng(0).normal(size=(2, 50))
    variables = {
        "distance": (("pair", "sample"), values),
        "score": ("pair", np.array([0.5, np.nan])),
        "score_low": ("pair", np.array([0.4, np.nan])),
        "score_high": ("pair", np.array([0.6, np.nan])),
        "spread": ((), np.float64(2.0)),
        "worst_sample": ("pair", np.array([3, 4])),
        "images": (("pair", "row", "column"), np.zeros((2, 3, 3))),
    }
    made = xr.Dataset(variables, {"pair": ["a", "b"], "t": ("pair", [0.0, 1.0])})
    for name, change in changes.items():
        made[name] = made[name].copy(data=change(made[name].values))
    return made


def status(second):
    return {each.name: each.status for each in agreements(result(), second)}


def test_the_same_is_equal_and_only_what_is_quoted_is_compared():
    found = agreements(result(), result(images=lambda x: x + 1))
    assert {each.name for each in found} == {"t", "distance", "score", "spread", "worst_sample"}
    assert all(each.status == EQUAL and each.equal == each.numbers and each.largest == 0 for each in found)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("spread", lambda x: x * (1 + 1e-6), ROUNDED),
        ("spread", lambda x: x * (1 + 1e-4), DIFFERS),
        ("spread", lambda x: x * np.nan, DIFFERS),
        ("score", lambda x: x + 0.1 - 1e-9, WITHIN),
        ("score", lambda x: x + 0.101, DIFFERS),
        ("score", lambda x: np.where(np.isnan(x), 0.5, x), DIFFERS),  # defined where it was not
        ("distance", lambda x: x + 0.2, WITHIN),  # its deviation is 1, of the mean of 50 samples 0.14
        ("distance", lambda x: x + 0.4, DIFFERS),
        ("distance", lambda x: x[:, ::-1], WITHIN),
        ("worst_sample", lambda x: x + 1, DIFFERS),
        ("t", lambda x: x + 1e-7, ROUNDED),
    ],
)
def test_each_number_by_its_own_measure(name, change, expected):
    found = status(result(**{name: change}))
    assert found.pop(name) == expected
    assert set(found.values()) == {EQUAL}


def test_what_is_missing_or_of_another_size_differs_and_says_so():
    for second, said in (
        (result().drop_vars("spread"), "it was not measured again"),
        (result().isel(sample=slice(40)), "2 pair x 40 sample instead of 2 pair x 50 sample"),
    ):
        (other,) = [each for each in agreements(result(), second) if each.status == DIFFERS]
        assert other.note == said


def test_what_was_made_differently_is_named():
    one = {
        "versions": {"torch": "1", "numpy": "2"},
        "threads": 4,
        "device": "cpu",
        "images": {"name": "a", "fingerprint": "f1"},
    }
    assert made_differently(one, {**one, "versions": {"torch": "1", "numpy": "2", "new": "3"}}) == []
    other = {
        "versions": {"torch": "3", "numpy": "2"},
        "threads": 2,
        "device": "cuda",
        "images": {"name": "a", "fingerprint": "f2"},
    }
    assert made_differently(one, other) == [
        "version of torch: 1 then, 3 now",
        "device: cpu then, cuda now",
        "threads: 4 then, 2 now",
        "data 'a': fingerprint f1 then, f2 now",
    ]
