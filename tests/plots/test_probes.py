import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

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
    gaussian = next(line for line in panels[3].lines if line.get_label() == "over Gaussian")
    np.testing.assert_allclose(gaussian.get_ydata(), ds["excess"].sel(reference="gaussian", units="eps"))
    assert panels[0].get_ylabel() == "squared error\n(mean over pixels)"
    assert {text.get_text() for text in panels[2].texts} == {ds.attrs["model"], "Gaussian", "optimal"}


def two(results):
    first = results.difficulty()
    return [first, first.assign_attrs(model="another")]


def test_several_models_share_axes_and_references(results):
    first, second = two(results)
    second["error_mean"] = 2 * second["error_mean"]
    figure = difficulty.difficulty([first, second])
    panel = figure.axes[1]
    lines = {line.get_label(): line for line in panel.lines}
    assert list(lines) == [first.attrs["model"], "another", "Gaussian", "optimal"]
    np.testing.assert_allclose(lines["another"].get_ydata(), 2 * lines[first.attrs["model"]].get_ydata())
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines.values()}
    assert len(looks) == 4
    over = [line.get_label() for line in figure.axes[3].lines][:2]
    assert over == [f"{first.attrs['model']} over Gaussian", "another over Gaussian"]
    table = difficulty.together([first, second])
    assert table.groupby("model", sort=False).size().tolist() == [len(table) // 2] * 2


def test_difficulty_without_references_has_no_second_row(results):
    ds = results.difficulty().drop_dims("reference")
    figure = difficulty.difficulty([ds])
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["squared error\n(mean over pixels)"]


@pytest.mark.parametrize("between", [True, False])
def test_landscape_draws_the_line_its_interval_and_each_bin(results, between):
    ds = results.landscape(between)
    whole, by_t, bar = probes.landscape(ds).axes
    np.testing.assert_array_equal(whole.lines[0].get_ydata(), ds["loss"])
    assert len(whole.collections) == 1
    labelled = {line.get_label(): line for line in by_t.lines}
    np.testing.assert_array_equal(labelled["t = 0.7"].get_ydata(), ds["loss_by_t"].sel(t=0.7, method="nearest"))
    assert list(by_t.texts) == []
    np.testing.assert_allclose(bar.get_yticks(), np.sort(ds["t"]))
    # A colour a level, in the order of the levels: the bar's from data up to noise are the lines' by growing t.
    drawn = [to_hex(labelled[f"t = {t:.2g}"].get_color()) for t in np.sort(ds["t"].values)]
    assert len(set(drawn)) == len(drawn)
    assert next(mesh for mesh in bar.collections if isinstance(mesh, QuadMesh)).cmap.colors == drawn
    assert ("second model" in whole.get_xlabel()) == between
    assert "squared error in eps" in whole.get_ylabel()


def test_landscape_without_bins_is_one_panel(results):
    assert len(probes.landscape(results.landscape().drop_vars("loss_by_t")).axes) == 1


def test_another_kind_is_refused(results):
    with pytest.raises(UserError, match="kind 'landscape', not 'recipe'"):
        probes.landscape(results.recipe())
