import numpy as np
import pytest
import xarray as xr

from consistency_lab.errors import UserError
from consistency_lab.intervals import mean_interval
from consistency_lab.plots import frames, reading


def test_mean_interval_covers_and_doubles_for_pairwise_means():
    rng = np.random.default_rng(0)
    _, low, high = mean_interval(rng.standard_normal((4000, 30)))
    assert 0.92 < np.mean((low < 0) & (high > 0)) < 0.96
    samples = rng.standard_normal(50)
    mean, low, high = mean_interval(samples)
    _, low2, high2 = mean_interval(samples, degree=2)
    assert mean == pytest.approx(samples.mean())
    assert high2 - low2 == pytest.approx(2 * (high - low))


def test_mean_interval_of_a_u_statistic_covers_its_mean():
    """Rows of E|x - y|: mean 2/sqrt(pi) for standard normals."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        x = rng.standard_normal(40)
        rows = np.abs(x[:, None] - x[None]).sum(1) / 39
        _, low, high = mean_interval(rows, degree=2)
        hits.append(low < 2 / np.sqrt(np.pi) < high)
    assert 0.90 < np.mean(hits) < 0.98


def test_one_sample_has_a_mean_and_no_interval():
    mean, low, high = mean_interval(np.array([3.0]))
    assert mean == 3.0
    assert np.isnan([low, high]).all()


def test_overview_has_each_thing_once_and_consistent_numbers(results):
    ds = results.comparison(4)
    table = frames.overview(ds, "mse").set_index("name")
    assert list(table["group"].value_counts()[["family", "pair", "null", "ceiling", "reference"]]) == [1, 6, 1, 1, 3]
    last = ds.isel(t=-1).sel(metric="mse")
    pair = table.loc["unet seed 0 | dit seed 0"]
    assert pair["score"] == float(last["score"].sel(pair="unet seed 0 | dit seed 0"))
    assert pair["distance"] == pytest.approx(
        float(last["distance"].sel(pair="unet seed 0 | dit seed 0").mean()), rel=1e-6
    )
    ceiling = table.loc["same model, other step count (ceiling)"]
    assert ceiling["score"] == pytest.approx(1 - float(last["ceiling"].mean() / last["ceiling_null"].mean()), rel=1e-5)
    assert ceiling["score_high"] <= 1
    for part in ("distance", "score"):
        rows = table.dropna(subset=[f"{part}_low"])
        assert (rows[f"{part}_low"] <= rows[part] + 1e-12).all()
        assert (rows[part] <= rows[f"{part}_high"] + 1e-12).all()
    reference = table.loc["models to the Gaussian denoiser"]
    one = last.sel(reference="gaussian")
    ratio = float(one["reference_distance"].mean() / one["reference_null"].mean())
    assert reference["score"] == pytest.approx(1 - ratio, rel=1e-5)
    assert list(reference[["score_low", "score_high"]]) == [
        float(one[f"reference_mean_score_{e}"]) for e in ("low", "high")
    ]


def test_score_curves_of_references_have_the_interval_of_the_result(results):
    ds = results.comparison(3)
    table = frames.curves(ds, "mse")
    line = table[(table["quantity"] == "score") & (table["name"] == "Gaussian denoiser")]
    one = ds.sel(metric="mse", reference="gaussian")
    for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
        np.testing.assert_array_equal(line[column], one[f"reference_mean_score{end}"])


def test_psnr_is_never_scored_and_says_why(results):
    ds = results.comparison(3)
    assert frames.overview(ds, "psnr")["score"].isna().all()
    assert "never scored" in reading.why_undefined(ds, "psnr")
    assert set(frames.curves(ds, "psnr")["quantity"]) == {"distance"}


def test_a_collapsed_null_has_no_score_and_says_why(results):
    ds = results.comparison(3)
    ds["null"] = 0 * ds["null"]
    for name in ("family_score", "ceiling_score"):
        ds[name] = np.nan * ds[name]
    table = frames.overview(ds, "mse").set_index("group")
    assert np.isnan(table.loc["null", "score"])
    assert np.isnan(table.loc["ceiling", "score"])
    assert "collapsed" in reading.why_undefined(ds, "mse")


def test_matrix_is_symmetric_without_a_diagonal_and_has_the_references(results):
    ds = results.comparison(4)
    table = frames.matrix(ds, "cosine")
    square = table.to_numpy()[:, :4]
    assert np.isnan(np.diag(square)).all()
    np.testing.assert_array_equal(square, square.T)
    assert square[0, 2] == float(ds["score"].isel(t=-1).sel(metric="cosine", pair="unet seed 0 | dit seed 0"))
    assert list(table.columns[4:]) == ["Gaussian denoiser", "optimal denoiser", "data mean"]


def test_matches_have_their_intervals_and_leave_out_the_diagonal(results):
    ds = results.comparison(3)
    last = ds.isel(t=-1)
    table = frames.matches(ds, "mse").set_index(["model", "against"])
    assert len(table) == 3 * 2 + 3 * 3
    pair = last.sel(metric="mse", pair="unet seed 0 | dit seed 0")
    for one, other in (("unet seed 0", "dit seed 0"), ("dit seed 0", "unet seed 0")):
        assert table.loc[(one, other)].to_list() == [float(pair[name]) for name in ("score", "score_low", "score_high")]
    against = last["reference_score_low"].sel(metric="mse", model="dit seed 0", reference="gaussian")
    assert table.loc[("dit seed 0", "Gaussian denoiser"), "low"] == float(against)
    # A metric without scores: its mean, with the t interval over samples.
    psnr = frames.matches(ds, "psnr").set_index(["model", "against"])
    expected = mean_interval(last["distance"].sel(metric="psnr", pair="unet seed 0 | unet seed 1").values)
    np.testing.assert_allclose(psnr.loc[("unet seed 0", "unet seed 1")], expected)


def test_distribution_has_a_row_a_sample(results):
    ds = results.comparison(3)
    table = frames.distribution(ds, "mse")
    assert table.shape == (ds.sizes["sample"], 6)
    expected = ds["null"].isel(t=-1, pair=1).sel(metric="mse")
    np.testing.assert_array_equal(table[f"null: {ds['pair'].values[1]}"], expected)


def test_wrong_kind_missing_variable_and_unknown_metric_are_one_sentence(results):
    with pytest.raises(UserError, match="needs a result of kind 'comparison', not 'difficulty'"):
        frames.overview(results.difficulty(), "mse")
    with pytest.raises(UserError, match="lacks null"):
        frames.overview(results.comparison(3).drop_vars("null"), "mse")
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        frames.curves(results.comparison(3), "cosin")


def test_training_leaves_out_steps_that_a_model_does_not_have(results):
    table = frames.training(results.training())
    assert table.groupby("model")["step"].max().to_dict()["mlp seed 0"] == 75
    assert not table["loss"].isna().any()


def test_quantity_names_unit_and_direction():
    ds = xr.Dataset(attrs={"units_psnr": "dB", "units_mse": "1"})
    assert reading.quantity(ds, "psnr") == "PSNR (dB; higher is more alike)"
    assert reading.quantity(ds, "mse") == "MSE (no unit)"
    assert "not recorded" in reading.quantity(ds, "cosine")
