import numpy as np
import pytest
import xarray as xr
from scipy import stats

from consistency_lab.errors import UserError
from consistency_lab.intervals import jackknife, mean_interval
from consistency_lab.probes.profiles import (
    Profile,
    add_profiles,
    difficulty_correlations,
    difficulty_table,
    group_count,
    leave_out_means,
)

T = (np.arange(10) + 0.5) / 10


def result(*samples):
    """A difficulty result whose definitions are means of samples ``(t, n)``."""
    ds = xr.Dataset(coords={"t": T}, attrs={"kind": "difficulty"})
    profiles = []
    for i, x in enumerate(samples):
        profiles.append(Profile(f"d{i}", "u", "text", x.mean(-1), leave_out_means(x, group_count(x.shape[-1]))))
    add_profiles(ds, profiles)
    return ds


def test_left_out_means_are_those_of_the_others():
    x = np.random.default_rng(0).normal(size=(3, 11))
    found = leave_out_means(x, 4)
    for g in range(4):
        np.testing.assert_allclose(found[g], x[:, np.arange(11) % 4 != g].mean(1))


def test_with_one_image_a_group_the_interval_is_the_t_interval():
    x = np.random.default_rng(0).normal(size=(5, 12))
    found, expected = jackknife(x.mean(1), leave_out_means(x, 12)), mean_interval(x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 48))
    ends = jackknife(x.mean(1), leave_out_means(x, 16))
    assert 0.935 < ((ends.low < 0) & (ends.high > 0)).mean() < 0.965


def test_a_planted_curve_is_read_as_planted():
    noise = 0.01 * np.random.default_rng(0).normal(size=(10, 64))
    falling, late = np.where(T < 0.5, 3.0, 1.0), 1 + 4.0 * (np.abs(T - 0.75) < 0.06)
    table = difficulty_table(result(falling[:, None] + noise, late[:, None] + noise)).set_index("definition")
    assert table.loc["d0", "share_below"] == pytest.approx(0.75, abs=0.002)
    assert table.loc["d0", "share_below_low"] < 0.75 < table.loc["d0", "share_below_high"]
    assert table.loc["d0", "peak_t_low"] == pytest.approx(0.05)
    assert table.loc["d0", "peak_t_high"] == pytest.approx(0.45)  # five times are alike within their intervals
    assert table.loc["d1", "peak_t"] == pytest.approx(0.75)
    assert table.loc["d1", ["peak_t_low", "peak_t_high"]].tolist() == pytest.approx([0.75, 0.75])
    assert table["uniform_below"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("curve", ["flat", "two alike", "sharp"])
def test_the_range_of_the_peak_holds_the_true_one_as_often_as_it_says(curve):
    rng, trials, truth = np.random.default_rng(2), 200, np.zeros(10)
    if curve != "flat":
        truth[[3, 7]] = 1.0, {"two alike": 0.999, "sharp": 0.0}[curve]
    hits, wide = 0, []
    for _ in range(trials):
        # Images are hard or easy at all times together, and heavy-tailed.
        x = truth[:, None] + 0.3 * rng.standard_t(4, size=(10, 48)) + rng.exponential(size=48)
        row = difficulty_table(result(x)).iloc[0]
        hits += row["peak_t_low"] <= T[3] <= row["peak_t_high"]
        wide.append(row["peak_t_high"] - row["peak_t_low"])
    assert hits / trials >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / trials)
    assert np.median(wide) == pytest.approx({"flat": 0.9, "two alike": 0.4, "sharp": 0.0}[curve], abs=0.11)


def test_a_tie_is_told_from_nothing_and_a_difference_without_noise_from_everything():
    shared = np.random.default_rng(0).normal(size=48)
    level = np.array([0.0, 0.0, 1.0, 2.0, 2.0, 1.9, 0.0, 0.0, 0.0, 0.0])
    (row,) = difficulty_table(result(level[:, None] + shared)).to_dict("records")  # what all times share cancels
    assert [row[key] for key in ("peak_t", "peak_t_low", "peak_t_high")] == pytest.approx([0.35, 0.35, 0.45])


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 20)), rng.normal(size=(10, 20))
    (row,) = difficulty_correlations(result(x, y)).to_dict("records")
    assert row["rho"] == pytest.approx(stats.spearmanr(x.mean(1), y.mean(1)).statistic)
    assert row["rho_low"] < row["rho"] < row["rho_high"]
    assert row["times"] == 10


def test_undefined_times_are_left_out_and_said():
    x = np.random.default_rng(0).normal(size=(10, 20)) + 5
    holes = np.where((T < 0.3)[:, None], np.nan, x)
    ds = result(x, holes)
    assert difficulty_correlations(ds)["times"].tolist() == [7]
    table = difficulty_table(ds)
    assert table["defined"].tolist() == [1.0, 0.7]
    assert table["uniform_below"][1] == pytest.approx(2 / 7)


def test_results_without_profiles_are_refused():
    with pytest.raises(UserError, match="probe_difficulty"):
        difficulty_table(xr.Dataset(attrs={"kind": "landscape"}))
