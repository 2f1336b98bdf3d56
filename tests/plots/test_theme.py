import matplotlib
import numpy as np
import pytest

from consistency_lab.plots import theme


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
