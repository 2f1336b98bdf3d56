import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from consistency_lab.plots import frames, similarity


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_scores_draws_each_value_inside_its_interval(results):
    ds = results.comparison(4)
    ax = similarity.scores(ds, "mse").axes[0]
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows[-1] == "all models, same noise"
    points = {
        int(line.get_ydata()[0]): float(line.get_xdata()[0])
        for line in ax.lines
        if line.get_marker() not in ("None", None, "")
    }
    table = frames.overview(ds, "mse").set_index("name")
    for y, name in enumerate(rows):
        assert points[y] == pytest.approx(table.loc[name, "score"])
    bars = [
        line
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line.get_ydata()[0] == len(rows) - 1 == line.get_ydata()[1]
    ]
    assert bars[0].get_xdata() == pytest.approx(
        table.loc["all models, same noise", ["score_low", "score_high"]].to_list()
    )
    assert "consistency score, mse" in ax.get_xlabel()


def test_one_pair_is_not_shown_twice(results):
    ax = similarity.scores(results.comparison(2, references=False), "mse").axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert "unet seed 0 | unet seed 1" in names
    assert not any("all models" in name for name in names)


def test_heatmap_writes_every_value(results):
    ds = results.comparison(4)
    figure = similarity.heatmap(ds, "mse")
    values = frames.matrix(ds, "mse").to_numpy()
    written = [text for text in texts(figure) if text != "·" and " to " not in text]
    assert written == [
        f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") for value in values.ravel() if np.isfinite(value)
    ]
    assert texts(figure).count("·") == 4
    low, high = (frames.matrix(ds, "mse", part).to_numpy() for part in ("low", "high"))
    ends = [
        f"{a:.2f} to {b:.2f}".replace("-0.00", "0.00").replace("-", "−")
        for a, b in zip(low.ravel(), high.ravel(), strict=True)
        if a == a
    ]
    assert [text for text in texts(figure) if " to " in text] == ends
    assert "dB" in similarity.heatmap(ds, "psnr").axes[0].get_title(loc="left")


@pytest.mark.parametrize(("models", "references"), [(2, True), (2, False), (5, True)])
def test_no_name_of_a_heatmap_is_cut_off(results, models, references):
    figure = similarity.heatmap(results.comparison(models, samples=6, references=references), "mse")
    figure.savefig(io.BytesIO(), format="png")  # lays it out
    ax, whole = figure.axes[0], figure.bbox
    for text in (ax.title, ax._left_title, *ax.get_xticklabels(), *ax.get_yticklabels()):
        if text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0, text  # noqa: PT018
            assert box.x1 <= whole.x1 and box.y1 <= whole.y1, text  # noqa: PT018


def test_no_score_below_one_reads_as_one(results):
    ds = results.comparison(2, references=False).copy(deep=True)
    for name, value in (("score", 0.998), ("score_low", 0.9972), ("score_high", 0.9988)):
        ds[name] = ds[name] * 0 + value
    assert {"0.998", "0.997 to 0.999"} <= set(texts(similarity.heatmap(ds, "mse")))
    assert {"1.00"} < set(
        texts(
            similarity.heatmap(
                ds.assign(score=0 * ds["score"] + 1, score_low=0 * ds["score"] + 1, score_high=0 * ds["score"] + 1),
                "mse",
            )
        )
    )


def test_narrow_scores_have_the_same_marks_and_their_names_above(results):
    ds = results.comparison(3, samples=12)
    broad, narrow = (similarity.scores(ds, "mse", narrow=narrow).axes[0] for narrow in (False, True))
    assert len(narrow.lines) == len(broad.lines)
    for one, other in zip(narrow.lines, broad.lines, strict=True):
        np.testing.assert_array_equal(one.get_xdata(), other.get_xdata())
    assert [text.get_text() for text in narrow.texts] == [label.get_text() for label in broad.get_yticklabels()]
    assert narrow.get_figure().get_size_inches()[0] * 96 * 0.8 < 336  # what a phone leaves beside the margins


def test_undefined_cells_say_so(results):
    ds = results.comparison(3, references=False)
    ds["score"] = np.nan * ds["score"]
    assert texts(similarity.heatmap(ds, "mse")).count("undefined") == 6


def test_curves_have_labels_units_and_intervals(results):
    ds = results.comparison(4)
    score, distance = similarity.curves(ds, "mse").axes[:2]
    assert {"same noise", "other noise (null)", "Gaussian denoiser"} <= {text.get_text() for text in distance.texts}
    assert "squared image units" in distance.get_ylabel()
    assert distance.get_xlabel().startswith("time t")
    lines = {line.get_label(): line for line in score.lines}
    np.testing.assert_array_equal(lines["all models"].get_ydata(), ds["family_score"].sel(metric="mse"))
    assert sum(line.get_label() == "_pair" for line in score.lines) == 6
    # The band of the score and, below, one band a line.
    assert len(score.collections) == 4
    assert len(distance.collections) == len(distance.lines) == 6  # the ceiling among them


def test_curves_of_psnr_have_no_score_panel(results):
    figure = similarity.curves(results.comparison(3), "psnr")
    assert len(figure.axes) == 1
    assert "dB; higher is more alike" in figure.axes[0].get_ylabel()


def test_curves_say_why_a_score_is_missing(results):
    ds = results.comparison(3, references=False)
    for name in ("score", "family_score", "null"):
        ds[name] = (0 if name == "null" else np.nan) * ds[name]
    assert any("undefined: collapsed" in text for text in texts(similarity.curves(ds, "mse")))


def test_distribution_counts_every_sample_of_every_pair(results):
    ds = results.comparison(4)
    upper, lower = similarity.distribution(ds, "mse").axes
    outlines = [patch for patch in upper.patches if not patch.get_fill()]
    assert [patch.get_data().values.sum() for patch in outlines] == pytest.approx([100, 100])
    assert [label.get_text() for label in lower.get_yticklabels()] == list(ds["pair"].values[::-1])
    assert "squared image units" in lower.get_xlabel()


def test_distribution_says_where_a_pair_has_no_value(results, recwarn):
    """As PSNR of equal images."""
    ds = results.comparison(3)
    ds["distance"][{"pair": 1}] = np.nan
    figure = similarity.distribution(ds, "mse")
    assert texts(figure).count("undefined") == 1
    ds["null"][{"pair": 1}] = np.nan
    ds["distance"][:] = np.nan
    assert texts(similarity.distribution(ds, "mse")).count("undefined") == len(ds["pair"]) + 1
    assert not [each for each in recwarn if each.category is RuntimeWarning]


def test_figures_are_drawn_without_pyplot(results):
    rooms = ", ".join(
        f"consistency_lab.plots.{name}" for name in ("similarity", "gallery", "probes", "training", "save")
    )
    code = f"import sys, {rooms}; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    before = dict(matplotlib.rcParams)
    similarity.scores(results.comparison(3, samples=12), "mse")
    assert dict(matplotlib.rcParams) == before
