"""What the figures of studies draw is what their frames hold."""

import json

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from consistency_lab.paper.plots import frames, studies
from consistency_lab.paper.rows import Rows
from consistency_lab.plots.theme import NULL


def score(value, **more):
    return {"mse_score": value, "mse_score_low": value - 0.1, "mse_score_high": value + 0.1, "mse_null": 0.5, **more}


CURVE = {
    "t": [1.0, 0.0],
    "log_snr": [-9.0, None],
    "score": [0.1, 0.9],
    "score_low": [0.0, 0.8],
    "score_high": [0.2, None],
}


@pytest.fixture
def rows(tmp_path):
    return Rows(tmp_path / "rows.jsonl")


def add(rows, kind, values, **spec):
    rows.row({"row": kind, **spec}, lambda: values)
    return frames.current_rows(rows.path)


def test_rows_of_another_version_are_not_drawn(rows):
    with pytest.raises(frames.MissingRows, match="there are no rows"):
        frames.current_rows(rows.path)
    add(rows, "family", score(0.5), family="a", models=["1"])
    line = {**json.loads(rows.path.read_text()), "key": "of another version"}
    del line["checksum"]
    rows.path.write_text(json.dumps(line) + "\n")
    with pytest.raises(frames.MissingRows, match=r"all 1 rows .* older version"):
        frames.current_rows(rows.path)


def test_rows_measured_in_two_ways_are_not_mixed(rows):
    add(rows, "family", score(0.1), family="a", models=["1"], count=64)
    add(rows, "family", score(0.2), family="b", models=["2"], count=64)
    add(rows, "family", score(0.3), family="a", models=["1"], count=256)
    found = add(rows, "family", score(0.4), family="c", models=["3"], count=256)
    assert dict(frames.families(found)[["family", "mse_score"]].values) == {"a": 0.3, "c": 0.4}


def test_of_a_family_that_was_trained_again_only_the_new_models_count(rows):
    for step in (25, 50):
        add(rows, "emergence", score(0.1), family="a", models=["old"], step=step)
    found = add(rows, "emergence", score(0.7), family="a", models=["new"], step=100)
    assert list(frames.families(found, "emergence")["step"]) == [100]


def test_pairs_are_of_the_models_that_the_families_are(rows):
    for name in "ab":
        alone = add(rows, "family", score(0.5), family=name, models=[name])
    assert frames.crosses(alone).empty
    add(rows, "cross", score(0.1), families=["a", "b"], models=["old", "b"])
    found = add(rows, "cross", score(0.2), families=["a", "b"], models=["a", "b"])
    assert list(frames.crosses(found)["mse_score"]) == [0.2]


@pytest.mark.parametrize(("frechet", "covered", "fit"), [(19.0, 10, True), (21.0, 10, False), (19.0, 8, False)])
def test_a_contrast_model_is_fit_if_its_images_are_nearly_as_good(rows, frechet, covered, fit):
    quality = {"frechet": 10.0, "frechet_worst": 10.0, "covered": 10, "classes": 10}
    for name in ("a", "gan", "unknown"):
        add(rows, "family", score(0.5, **({"mse_along_t": CURVE} if name == "a" else {})), family=name, models=[name])
    add(rows, "quality", quality, family="a", models=["a"])
    add(rows, "cross", score(0.3), families=["a", "gan"], models=["a", "gan"])
    worse = {**quality, "frechet_worst": frechet, "covered": covered}
    found = add(rows, "quality", worse, family="gan", models=["gan"])
    table = frames.families(found).set_index("family")
    assert [table.loc[name, "fit"] for name in ("a", "gan", "unknown")] == [True, fit, None]
    assert list(table["diffusion"]) == [True, False, False]
    scores = frames.scores(found)
    assert scores.loc[scores["group"] == "diffusion with GAN, VAE", "fit"].eq(False).tolist() == [not fit]


def test_scores_come_in_groups_the_most_alike_first(rows):
    for name, value in (("a", 0.5), ("b", 0.7), ("gan", 0.2), ("vae", 0.3)):
        more = {"mse_along_t": CURVE} if name in "ab" else {}
        add(rows, "family", score(value, **more), family=name, models=[name])
    for first, second in (("a", "b"), ("a", "gan"), ("gan", "vae")):
        found = add(rows, "cross", score(0.1), families=[first, second], models=[first, second])
    table = frames.scores(found)
    assert list(table["name"]) == ["b", "a", "a | b", "vae", "gan", "gan | vae", "a | gan"]
    assert list(table["group"].drop_duplicates()) == list(frames.GROUPS)
    np.testing.assert_allclose(table["score_high"] - table["score_low"], 0.2)


def test_curves_of_families_keep_what_is_undefined(rows):
    found = add(rows, "family", score(0.9, mse_along_t=CURVE), family="a", models=["a"])
    table = frames.along_t(frames.families(found), "mse")
    np.testing.assert_array_equal(table["value"], [0.1, 0.9])
    np.testing.assert_array_equal(table["high"], [0.2, np.nan])
    assert frames.metrics_of(frames.families(found)) == ["mse"]


def test_a_row_says_of_what_it_holds_curves_and_residuals(rows):
    said = {"mse_along_t": CURVE, "drift_along_t": 0.1, "residual_after_all": 0.2, "residual_after_gaussian": 0.3}
    found = add(rows, "family", score(0.9, **said, curves=["mse"], references=["gaussian"]), family="a", models=["a"])
    table = frames.families(found)
    assert (frames.metrics_of(table), frames.references_of(table)) == (["mse"], ["gaussian"])
    assert list(table["diffusion"]) == [True]
    older = add(rows, "family", score(0.9, mse_along_t=CURVE, residual_after_gaussian=0.3), family="b", models=["b"])
    table = frames.families([row for row in older if row["spec"]["family"] == "b"])
    assert (frames.metrics_of(table), frames.references_of(table)) == (["mse"], ["gaussian"])


def test_probes_keep_networks_apart(rows):
    for part in ("generator", "discriminator"):
        found = add(rows, "why", {"roughness": 0.1}, probe="line", family="gan", models=["1"], part=part)
    assert list(frames.probes(found, "line")["name"]) == ["gan, generator", "gan, discriminator"]
    with pytest.raises(frames.MissingRows, match="no rows of the probe 'structure'"):
        frames.probes(found, "structure")


def table():
    ends = {"x_low": [0.4, 0.2, np.nan], "x_high": [0.6, 0.3, np.nan]}
    ends |= {"y_low": [0.5, -3.0, 5.0], "y_high": [2.0, -1.0, 20.0]}
    values = {"x": [0.5, 0.25, 0.75], "y": [1.0, -2.0, 10.0], "fit": [True, False, None]}
    return pd.DataFrame({"group": ["one", "one", "two"], "name": ["a", "b", "c"], **values, **ends})


def lengths(ax, points):
    return [line for line in ax.lines if len(line.get_xdata()) == points]


def test_a_forest_draws_values_and_intervals_and_marks_the_unfit():
    ax = studies.forest(table(), [studies.Panel("x", "x (no unit)", lines={"null": 0.0})]).axes[0]
    y = {text.get_text(): at for at, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    assert list(y) == ["one", "a", "b (unfit)", "two", "c"]
    assert sorted(y.values()) == list(y.values())
    marks = {float(line.get_xdata()[0]): line for line in lengths(ax, 1)}
    at = {x: line.get_ydata()[0] for x, line in marks.items()}
    assert at == {0.5: y["a"], 0.25: y["b (unfit)"], 0.75: y["c"]}
    hollow = [matplotlib.colors.same_color(marks[x].get_markerfacecolor(), "white") for x in (0.5, 0.25, 0.75)]
    assert hollow == [False, True, False]
    assert {tuple(line.get_xdata()) for line in lengths(ax, 2)} == {(0.4, 0.6), (0.2, 0.3), (0.0, 0.0)}
    assert [text.get_text() for text in ax.texts] == ["no interval", "null"]
    colours = {line.get_color() for line in marks.values()}
    assert len(colours) == 2  # a group each
    assert NULL not in colours


def test_a_logarithmic_panel_says_what_it_has_no_place_for():
    ax = studies.forest(table(), [studies.Panel("y", "y (no unit)", log=True)]).axes[0]
    assert {float(line.get_xdata()[0]) for line in lengths(ax, 1)} == {1.0, 10.0}
    assert [text.get_text().strip() for text in ax.texts] == ["-2, not above 0"]


def test_an_interval_that_goes_on_beyond_a_logarithmic_panel_ends_in_an_arrow():
    wide = pd.DataFrame({"name": ["a", "b"], "y": [5.0, 6.0], "y_low": [-1.0, 4.0], "y_high": [9.0, 8.0]})
    ax = studies.forest(wide, [studies.Panel("y", "y (no unit)", log=True)]).axes[0]
    (arrow,) = [line for line in lengths(ax, 1) if line.get_marker() == "<"]
    assert (arrow.get_xdata()[0], arrow.get_ydata()[0]) == (ax.get_xlim()[0], ax.get_yticks()[0])
    assert ax.get_xlim()[0] > 0


def test_two_numbers_stand_beside_each_other_in_a_column():
    panels = [studies.Panel("x", "x (no unit)"), studies.Panel("y", "y (no unit)")]
    named = table().assign(name=["a name of many letters, 750 steps", "b", "c"])
    first, second = studies.forest(named, panels, style="paper", width="column").axes
    assert first.get_position().y0 == second.get_position().y0
    assert first.get_position().x1 < second.get_position().x0
    assert "a name of many\nletters, 750 steps" in [text.get_text() for text in first.get_yticklabels()]


def test_a_panel_without_any_interval_says_so_once():
    bare = table().assign(x_low=np.nan, x_high=np.nan)
    ax = studies.forest(bare, [studies.Panel("x", "x (no unit)")]).axes[0]
    assert "no intervals known" in ax.get_xlabel()
    assert not ax.texts


@pytest.mark.parametrize("x", ["t", "step"])
def test_curves_draw_their_frame_with_bands_and_names(x):
    at = np.array([1.0, 0.5, 0.0]) if x == "t" else np.array([1, 10, 100])
    parts = []
    for name, shift in (("a", 0.0), ("b", 0.3)):
        y = np.array([0.1, 0.2, 0.4]) + shift
        columns = {"panel": "p", "name": name, x: at, "value": y, "low": y - 0.05, "high": y + 0.05}
        parts.append(pd.DataFrame(columns))
    frame = pd.concat(parts).assign(log_snr=np.tile([-5.0, 0.0, np.inf], 2))
    panels = {"p": "value (no unit)", "q": "other (no unit)"}
    ax, empty = studies.curves(frame, x, f"{x} (no unit)", panels, lines={"null": 0.0}, logx=x != "t").axes[:2]
    lines = {line.get_label(): line for line in ax.lines}
    for name, part in frame.groupby("name"):
        np.testing.assert_allclose(lines[name].get_xdata(), part[x])  # noise first, and early steps first
        np.testing.assert_allclose(lines[name].get_ydata(), part["value"])
    bands = [path.get_paths()[0].vertices[:, 1] for path in ax.collections]
    np.testing.assert_allclose([band.min() for band in bands], [0.05, 0.35])
    np.testing.assert_allclose([band.max() for band in bands], [0.45, 0.75])
    assert {text.get_text() for text in ax.texts} == {"a", "b", "null"}
    assert [text.get_text() for text in empty.texts] == ["no finished rows"]
    assert ax.xaxis_inverted() == (x == "t")


def test_a_curve_of_one_point_has_its_interval():
    once = pd.DataFrame({"panel": "p", "name": ["a"], "step": [10], "value": [3.0], "low": [-1.0], "high": [4.0]})
    ax = studies.curves(once, "step", "step", {"p": "value (no unit)"}, logy=True).axes[0]
    (bar,) = [path.get_segments()[0] for path in ax.collections]
    np.testing.assert_allclose(bar, [[10, -1], [10, 4]])
    assert ax.get_ylim()[0] > 0


def test_a_scatter_draws_both_intervals():
    figure = studies.scatter(table().fillna(0.7), "x", "y", "x (no unit)", "y (no unit)")
    ax = figure.axes[0]
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in lengths(ax, 1)} == {
        (0.5, 1.0),
        (0.25, -2.0),
        (0.75, 10.0),
    }
    assert {text.get_text() for text in ax.texts} == {"a", "b", "c"}
    spans = [tuple(line.get_xdata()) + tuple(line.get_ydata()) for line in lengths(ax, 2)]
    assert {(0.4, 0.6, 1.0, 1.0), (0.5, 0.5, 0.5, 2.0)} <= set(spans)
    low = table().fillna(0.7).assign(x_low=0.0)
    log = studies.scatter(low, "x", "y", "x (no unit)", "y (no unit)", logx=True).axes[0]
    edge = log.get_xlim()[0]
    assert log.get_xscale() == "log"
    assert 0 < edge < 0.25
    assert {line.get_xdata()[0] for line in lengths(log, 2) if line.get_ydata()[0] == line.get_ydata()[1]} == {edge}
