"""Intervals within what their quantity can be: those that reach beyond it are drawn back, all others stay to the bit."""

import numpy as np
import pytest
import xarray as xr

from consistency_lab.intervals import estimates, interval_names, interval_of
from consistency_lab.plots import frames, landscapes
from consistency_lab.plots.possible import _BOUNDS, above_zero, drawn_back, possible


def test_ends_are_drawn_back_and_the_estimate_is_not():
    found = drawn_back(
        (np.array([0.5, 0.5, -0.1]), np.array([-1.95, 0.2, -0.4]), np.array([1.4, np.nan, 2.0])), 0.0, 1.0
    )
    np.testing.assert_array_equal(found.estimate, [0.5, 0.5, -0.1])
    np.testing.assert_array_equal(found.low, [0.0, 0.2, -0.4])  # an estimate beyond its bounds keeps what it has
    np.testing.assert_array_equal(found.high, [1.0, np.nan, 2.0])
    assert above_zero((1.0, -2.0, 4.0)) == (1.0, 0.0, 4.0)


MADE = {
    "landscape": lambda results: results.landscape(False),
    "difficulty": lambda results: results.difficulty(),
    "comparison": lambda results: results.comparison(),
    "structure": lambda results: results.structure(),
    "curvature": lambda results: results.curvature(),
}


@pytest.mark.parametrize("kind", MADE)
def test_an_interval_that_reaches_too_far_is_found_whatever_it_is_of(results, kind):
    ds = MADE[kind](results)
    wide = ds.copy()
    for name in estimates(ds.data_vars):
        _, low, high = interval_names(name)
        wide[low], wide[high] = ds[name] * 0 - 1e9, ds[name] * 0 + 1e9
    within = possible(wide)
    bounded = {**_BOUNDS[kind], **{name: (-np.inf, 1.0) for name in estimates(ds.data_vars) if name.endswith("score")}}
    assert bounded.keys() & set(estimates(ds.data_vars))
    for name in estimates(ds.data_vars):
        least, most = bounded.get(name, (-np.inf, np.inf))
        value, low, high = map(np.atleast_1d, interval_of(within, name))
        there = np.isfinite(value) & (value >= least) & (value <= most)
        if np.isfinite(most):
            assert (high[there] == most).all(), name
        if np.isfinite(least):
            assert (low[there] == least).all(), name
    assert possible(within) is within


def test_what_is_possible_stays_as_it_was(results):
    ds = results.comparison()
    assert possible(ds).identical(ds)


def test_errors_of_difficulty_are_bounded_and_excess_is_not(results):
    ds = results.difficulty()
    for end in ("error_mean_low", "profile_low", "excess_low"):
        ds[end] = ds[end] * 0 - 1e9
    table = frames.difficulty(ds)
    assert (table[table["quantity"] == "error"]["low"] >= 0).all()
    assert (table[table["quantity"] == "excess"]["low"] == -1e9).any()
    profile = possible(ds)["profile_low"]
    assert (profile.sel(definition=["eps error", "x0 error", "v error"]) == 0).all()
    assert (profile.sel(definition="over gaussian").dropna("t") == -1e9).all()


def test_no_band_of_a_cosine_leaves_its_axis(results):
    ds = results.landscape(False)
    ds["gradient_cosine_low"] = ds["gradient_cosine"] - 1.95
    table = landscapes.gradient_frame(ds)
    cosines = table[table["quantity"] == "cosine"]
    assert cosines["low"].min() >= -1
    assert cosines["high"].max() <= 1


def test_means_of_distances_are_not_negative_and_those_of_psnr_may_be(results):
    ds = results.comparison()
    # One sample holds all of it: the t interval reaches below zero.
    one = xr.DataArray(np.eye(1, ds.sizes["sample"])[0], dims="sample")
    ds["distance"] = (ds["distance"] * 0 + one).transpose(*ds["distance"].dims)
    for metric, least in (("mse", 0.0), ("psnr", -np.inf)):
        pairs = frames.overview(ds, metric)
        pairs = pairs[pairs["group"] == "pair"]
        assert (pairs["distance_low"] == 0).all() if least == 0 else (pairs["distance_low"] < 0).all()
