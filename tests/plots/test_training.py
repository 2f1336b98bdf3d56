import numpy as np
import pytest

from consistency_lab.plots import training


def test_loss_has_a_labelled_line_and_its_records_for_each_model(results):
    ds = results.training()
    ax = training.loss(ds).axes[0]
    names = [line.get_label() for line in ax.lines]
    assert [name for name in names if not name.startswith("_")] == list(ds["model"].values)
    assert {text.get_text() for text in ax.texts} == set(ds["model"].values)
    records = ax.lines[names.index("_mlp seed 0 as recorded")]
    assert records.get_xdata().max() == 75
    smooth = ax.lines[names.index("unet seed 0")]
    losses = ds["loss"].isel(model=0).values
    # The last fifth of the steps.
    assert smooth.get_ydata()[-1] == pytest.approx(np.median(losses[ds["step"].values >= 0.8 * ds["step"].values[-1]]))
    assert "step" in ax.get_xlabel()


def test_lines_differ_by_more_than_colour(results):
    ax = training.loss(results.training(8)).axes[0]
    # get_linestyle calls every dash pattern "--".
    looks = [
        (line.get_color(), str(line._unscaled_dash_pattern))
        for line in ax.lines
        if not str(line.get_label()).startswith("_")
    ]
    assert len({colour for colour, _ in looks}) == 8
    assert len({style for _, style in looks}) == 4


def test_a_long_run_is_not_drawn_record_by_record(results):
    ds = results.training(1).isel(step=slice(0, 0))
    long = ds.reindex(step=np.arange(1, 5001), fill_value=1.0).assign_attrs(shape="")
    ax = training.loss(long).axes[0]
    drawn = ax.lines[0].get_xdata()
    assert len(drawn) <= training.DRAWN
    assert (drawn[0], drawn[-1]) == (1, 5000)


def test_no_records_says_so(results):
    ds = results.training()
    ax = training.loss(ds.where(ds["loss"] < 0)).axes[0]
    assert "no training step" in ax.texts[0].get_text()


def test_recipe_is_drawn_beside_the_uniform_density(results):
    ds = results.recipe()
    ax = training.recipe_density(ds).axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["recipe"].get_ydata(), ds["density"])
    assert set(lines["uniform"].get_ydata()) == {1}
    assert {text.get_text() for text in ax.texts} == {"recipe", "uniform"}
