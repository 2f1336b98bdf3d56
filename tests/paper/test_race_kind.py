import json

import numpy as np
import pandas as pd
import pytest

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.kinds.registry import figures_of
from consistency_lab.paper.plots import race
from consistency_lab.paper.race.table import race_table
from consistency_lab.plots.theme import REFERENCE, SAME
from consistency_lab.reports.html import report
from consistency_lab.training.timesteps.audit import audit_timesteps


@pytest.fixture
def raced(results):
    """Three seeds; 'twice' reaches both targets in half the control's steps, 'never' neither, 'wild' diverged."""
    names, roles = ["uniform", "twice", "never", "wild"], ["control", "recipe", "density", "annealed"]
    steps = np.array([10, 20, 40, 80])
    loss = np.stack([1 / steps, 0.5 / steps, np.full(4, 0.2), 1 / steps])[:, None] * np.array([1, 1.1, 1.2])[:, None]
    loss[3, :, 2:] = np.nan
    crossing = np.zeros((4, 3, 2)) + np.array([[30.0, 60.0]])
    crossing[1] /= 2
    crossing[2:] = 80
    censored = np.zeros((4, 3, 2), dtype=bool)
    censored[2:] = True
    diverged = np.full((4, 3), np.nan)
    diverged[3] = 30
    values = {
        "loss": loss,
        "crossing": crossing,
        "censored": censored,
        "diverged_at": diverged,
        "seconds_per_step": 0.01,
        "target_loss": [0.03, 0.015],
        "role": roles,
        "entry": names,
        "pilot_steps": [0, 30, 0, 0],
        "pilot_seconds": [0.0, 0.6, 0.0, 0.0],
        "planned_steps": 80,
        "batch": 32,
        "total_variation": 0.25,
        "effective_share": 0.5,
        "evaluation_step": steps.astype(float),
        "evaluation_loss": loss,
        "frechet": 100 * loss,
        "reference_value": [[0.125, 3.0]],
        "target_qualified": [True, False],
    }
    coords = {"contestant": names, "seed": [0, 1, 2], "step": steps, "target": [0.5, 0.9]}
    coords |= {"reference": ["Gaussian denoiser"], "metric": ["held-out loss", "Frechet distance"]}
    return results.like(results.race(), values, coords, control="uniform")


def test_curves_are_means_over_seeds_with_intervals(raced):
    frame = race.curves_frame(raced)
    assert set(frame["contestant"]) == {"uniform", "twice", "never"}  # who diverged has no curve
    own = frame[frame["contestant"] == "twice"]
    np.testing.assert_allclose(own["loss"], np.exp(np.log([1, 1.1, 1.2]).mean()) * 0.5 / raced["step"].values)
    assert (own["loss_low"] < own["loss"]).all()
    ax = race.curves(raced).axes[0]
    lines = {line.get_label(): line for line in ax.lines if not str(line.get_label()).startswith("_")}
    assert set(lines) == {"uniform", "twice", "never"}
    np.testing.assert_allclose(lines["twice"].get_ydata(), own["loss"])
    targets = [
        line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    np.testing.assert_allclose(targets, [0.03, 0.015])


def test_speedups_are_those_of_the_table(raced):
    table = race_table(raced).set_index(["contestant", "control"])
    assert table.loc[("twice", "uniform"), "speedup"] == pytest.approx(2.0)
    assert table.loc[("twice", "uniform"), "pilot_speedup"] == pytest.approx(1.0)
    assert table.loc[("never", "uniform"), "bound"] == "at most"
    assert table.loc[("twice", "never"), "bound"] == "at least"
    assert table.loc[("never", "wild"), "bound"] == "unknown"
    figure = race.speedups(raced)
    first = figure.axes[0]
    names = [text.get_text() for text in first.get_yticklabels()]
    assert names[2:] == ["uniform", "twice"]  # the fastest above; those that never arrived below
    assert set(names[:2]) == {"never", "wild"}
    marks = {
        (names[round(line.get_ydata()[0])], line.get_marker(), line.get_color()): line.get_xdata()[0]
        for line in first.lines
        if len(line.get_xdata()) == 1
    }
    assert marks["twice", "o", SAME] == pytest.approx(2.0)
    assert marks["never", "<", SAME] == pytest.approx(0.75)
    assert marks["twice", ">", REFERENCE] > 1  # than the second kind of control, which never arrived
    unknown = [name for name, mark, _ in marks if mark == "x"]
    assert sorted(unknown) == ["never", "wild"]


def test_a_race_has_its_figures(raced, results):
    made = {name: frame for name, _, frame in figures_of(raced)}
    assert set(made) == {"curves", "speedups"}
    assert all(isinstance(frame, pd.DataFrame) and len(frame) for frame in made.values())
    nobody = raced.assign(diverged_at=raced["diverged_at"].fillna(5))
    assert "no run has a record yet" in [text.get_text() for text in race.curves(nobody).axes[0].texts]
    for plot in (race.curves, race.speedups):
        with pytest.raises(UserError, match="not 'recipe'"):
            plot(results.recipe())


def test_a_pilots_time_is_added(raced):
    row = race_table(raced).set_index(["contestant", "control"]).loc[("twice", "uniform")]
    assert row["seconds_speedup"] == pytest.approx(2.0)
    # 60 steps of a hundredth of a second, over 30 of them and 0.6 s.
    assert row["pilot_seconds_speedup"] == pytest.approx(0.6 / 0.9)
    assert row["pilot_speedup"] == pytest.approx(60 / 60)
    assert (row["total_variation"], row["effective_sample_size"]) == (0.25, 16.0)


def test_a_race_and_an_audit_have_a_section(raced, tmp_path):
    audit = audit_timesteps(["uniform", "clts"], SCHEDULES.build("linear"), 100)
    path = report([raced, audit], tmp_path / "report.html")
    page, markdown = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert page.index("What do timestep samplers draw?") < page.index("Who reaches the target first?")
    assert page.count("<svg") == 3
    for text in ("NOT qualified", "2 [2, 2]", "unknown: neither always arrived", "Gaussian denoiser"):
        assert text in page, text
    assert "| twice | uniform |" in markdown
    first, second = json.loads(path.with_suffix(".json").read_text("utf-8"))["results"]
    assert (first["kind"], second["kind"]) == ("timesteps", "race")
    assert {row["contestant"] for row in second["finals"]} == {"uniform", "twice", "never", "wild", "Gaussian denoiser"}


def test_quality_is_a_mean_over_sound_seeds_with_its_interval(raced, results):
    frechet = np.array([10.0, 5.0]) * np.array([1.0, 2.0, 3.0])[:, None]
    frame = race.quality_frame(results.like(raced, {"evaluation_step": [10.0, 40.0], "frechet": frechet}, {}))
    assert set(frame["name"]) == {"uniform", "twice", "never"}  # who diverged has none
    own = frame[frame["name"] == "uniform"]
    np.testing.assert_allclose(own["value"], [20.0, 10.0])
    np.testing.assert_array_equal(own["step"], [10, 40])
    np.testing.assert_allclose(own["high"] - own["value"], 4.302653 * np.array([10.0, 5.0]) / np.sqrt(3), rtol=1e-6)
