import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from consistency_lab.plots import difficulty, similarity, theme, training


def test_contrast_is_that_of_the_guidelines():
    # Values that WCAG's own tools give.
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert theme.contrast("#0000ff", "#ffffff") == pytest.approx(8.59, abs=0.005)
    assert theme.contrast((1, 0, 0), "#ffffff") == pytest.approx(4.0, abs=0.005)


def test_text_can_be_read_on_a_cell_of_any_colour():
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3), axis=-1).reshape(-1, 3)
    assert min(theme.contrast(theme.ink_on(tuple(colour)), tuple(colour)) for colour in grid) >= 4.5


@pytest.mark.parametrize("name", [name for name in theme.PALETTE if name != "grid"])
def test_lines_and_labels_stand_out_on_white_and_on_dark(name):
    # 4.5 is what WCAG asks of text; the names of lines are written in the lines' colours.
    light, dark = theme.PALETTE[name]
    assert theme.contrast(light, "#ffffff") >= 4.5
    assert theme.contrast(dark, "#1b2027") >= 4.5


def test_every_colour_that_a_page_swaps_is_one_name_only():
    lights = [light for light, _ in theme.PALETTE.values()]
    assert len(set(lights)) == len(lights)
    assert not {theme.ON_DARK, theme.ON_LIGHT} & set(lights)


def test_spread_keeps_order_and_gap_and_leaves_free_labels_alone():
    placed = theme.spread([0.5, 0.51, 0.1, 0.52], 0.06)
    assert placed[2] == 0.1
    assert placed[0] < placed[1] < placed[3]
    assert np.diff(sorted(placed)).min() >= 0.06 - 1e-5
    top = theme.spread([1.0, 1.0, 1.0], 0.1)
    assert max(top) <= 1
    assert np.diff(sorted(top)).min() >= 0.1 - 1e-5
    assert theme.spread([], 0.1) == []


def test_a_themed_plot_leaves_the_settings_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)

    @theme.themed
    def plot():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        plot()
    assert dict(matplotlib.rcParams) == before


def test_time_axis_runs_from_noise_to_data_and_marks_log_snr_where_it_is():
    _, axes = theme.new_figure(4, 3)
    t = np.linspace(1, 0, 21)
    log_snr = 10 - 20 * t
    log_snr[-1] = np.inf
    theme.time_axis(axes[0, 0], t, log_snr)
    assert axes[0, 0].get_xlim() == (1.0, 0.0)
    top = axes[0, 0].child_axes[0]
    marks = {label.get_text(): at for at, label in zip(top.get_xticks(), top.get_xticklabels(), strict=True)}
    assert marks["0"] == pytest.approx(0.5)
    assert marks["−4"] == pytest.approx(0.7)
    assert marks["+4"] == pytest.approx(0.3)


def test_levels_of_noise_can_be_told_from_both_pages():
    # 3 is asked of what is needed to read a figure; names are not written in these colours.
    for colour in theme.LEVELS(np.linspace(0, 1, 64)):
        assert theme.contrast(tuple(colour[:3]), "#ffffff") >= 3
        assert theme.contrast(tuple(colour[:3]), "#1b2027") >= 3


def overlapping(figure):
    """Pairs of labels of one horizontal axis that lie on each other, as drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    axes = [each for ax in figure.axes for each in (ax, *ax.child_axes)]
    for ax in axes:
        for minor in (False, True):
            labels = [text for text in ax.xaxis.get_ticklabels(minor=minor) if text.get_visible() and text.get_text()]
            boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in labels]
            left, right = ax.get_window_extent().x0 - 1, ax.get_window_extent().x1 + 1
            boxes = sorted(
                (each for each in boxes if left <= (each[1].x0 + each[1].x1) / 2 <= right), key=lambda each: each[1].x0
            )
            found += [(a, b) for (a, one), (b, two) in itertools.pairwise(boxes) if one.x1 > two.x0]
    return found


@pytest.mark.parametrize("steps", [[25, 50, 400], [25, 100, 30_000], [1, 2, 1_000_000]])
def test_marks_of_steps_do_not_lie_on_each_other(results, steps):
    ds = results.training(2).isel(step=slice(0, 3)).assign_coords(step=steps).assign_attrs(shape="")
    ds["held_out"] = ds["loss"]
    figure = training.loss(ds)
    assert overlapping(figure) == []
    assert figure.axes[0].get_xlabel() == figure.axes[1].get_xlabel() == "training step (log scale)"


def test_marks_of_log_snr_do_not_lie_on_each_other(results):
    assert overlapping(difficulty.difficulty([results.difficulty()])) == []
    assert len(overlapping(crowded())) > 0  # the test can see it


def crowded():
    figure, axes = theme.new_figure(1, 1)
    axes[0, 0].set_xticks([0, 0.01], labels=["zero", "more"])
    return figure


def test_intervals_in_cells_can_be_read_and_fit(results):
    figure = similarity.heatmap(results.comparison(), "mse")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ax = figure.axes[0]
    texts = [text for text in ax.texts if " to " in text.get_text()]
    assert texts
    assert all(text.get_fontsize() >= 7 for text in texts)
    side = ax.transData.transform([(0, 0), (1, 0)])
    wide = side[1][0] - side[0][0]
    assert all(text.get_window_extent(canvas.get_renderer()).width <= wide for text in texts)
