import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.plots import difficulty, probes


def test_difficulty_draws_three_units_and_the_excess(results):
    ds = results.difficulty()
    figure = difficulty.difficulty([ds])
    panels = figure.axes[:6]
    assert [ax.get_title(loc="left") for ax in panels[:3]] == ["in eps units", "in x0 units", "in v units"]
    model = next(line for line in panels[1].lines if line.get_label() == ds.attrs["model"])
    np.testing.assert_array_equal(model.get_xdata(), ds["t"])
    np.testing.assert_array_equal(model.get_ydata(), ds["error_mean"].sel(units="x0"))
    assert len(panels[0].collections) == 3
    gaussian = next(line for line in panels[3].lines if line.get_label() == "Gaussian denoiser")
    np.testing.assert_allclose(gaussian.get_ydata(), ds["excess"].sel(reference="gaussian", units="eps"))
    assert panels[0].get_ylabel() == "squared error\n(mean over pixels)"
    assert {text.get_text() for text in panels[2].texts} == {ds.attrs["model"], "Gaussian", "optimal"}


def test_difficulty_without_references_has_no_second_row(results):
    ds = results.difficulty().drop_dims("reference")
    figure = difficulty.difficulty([ds])
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["squared error\n(mean over pixels)"]


@pytest.mark.parametrize("between", [True, False])
def test_landscape_draws_the_line_its_interval_and_each_bin(results, between):
    ds = results.landscape(between)
    whole, by_t = probes.landscape(ds).axes
    np.testing.assert_array_equal(whole.lines[0].get_ydata(), ds["loss"])
    assert len(whole.collections) == 1
    labelled = {line.get_label(): line for line in by_t.lines}
    np.testing.assert_array_equal(labelled["t = 0.7"].get_ydata(), ds["loss_by_t"].sel(t=0.7, method="nearest"))
    assert [text.get_text() for text in by_t.texts] == [f"t = {t:.2g}" for t in ds["t"].values]
    assert ("second model" in whole.get_xlabel()) == between
    assert "squared error in eps" in whole.get_ylabel()


def test_landscape_without_bins_is_one_panel(results):
    assert len(probes.landscape(results.landscape().drop_vars("loss_by_t")).axes) == 1


def test_another_kind_is_refused(results):
    with pytest.raises(UserError, match="kind 'landscape', not 'recipe'"):
        probes.landscape(results.recipe())
