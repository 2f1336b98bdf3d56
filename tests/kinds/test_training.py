"""Which of two runs was faster, and how long they took, from results with known curves."""

import json

import numpy as np
import pytest

from consistency_lab.kinds.numbers import duration
from consistency_lab.kinds.training import Training


def raced(results, losses, changed=("lr_final",), seconds=(1.0, 2.0)):
    """Two runs of four records that differ in some settings, with these held-out losses (models, steps)."""
    ds = results.training(2)
    facts = json.loads(ds.attrs["provenance"])
    first, second = ds["model"].values
    spec = next(iter(facts["specs"].values()))
    other = json.loads(json.dumps(spec))
    for key in changed:
        other["settings"][key] = "another"
    facts["specs"] = {first: spec, second: other}
    steps = np.array([25, 50, 75, 100])
    for model, each in zip(facts["models"], seconds, strict=True):
        model["seconds"] = each * 100
    ds = ds.isel(step=0, drop=True).expand_dims(step=steps).transpose("model", "step").copy()
    ds["loss"] = (("model", "step"), np.ones((2, 4)))
    ds["held_out"] = (("model", "step"), np.array(losses, dtype=float))
    return ds.assign_attrs(provenance=json.dumps(facts), shape="")


def test_the_step_at_which_the_other_arrived_is_interpolated(results):
    # 0.4 lies half way from 0.5 (step 25) to 0.3 (step 50): 37.5 steps of two seconds, against 100 of one.
    ds = raced(results, [[0.8, 0.6, 0.5, 0.4], [0.5, 0.3, 0.2, 0.1]])
    (said,) = Training().numbers(ds)["sooner"]
    assert "was faster" in said
    assert "after 38 steps, 2.67 times as soon in steps and 1.33 times in wall-clock time" in said
    assert "(lr_final changed)" in said
    assert "no interval" in said
    assert Training().section(ds).parts[0] == said


def test_a_run_that_never_arrives_or_arrives_later_was_not_faster(results):
    (never,) = Training().numbers(raced(results, [[0.8, 0.6, 0.5, 0.4], [0.9, 0.8, 0.7, 0.6]]))["sooner"]
    assert "was not faster: it never reached" in never
    assert "its least was 0.6" in never
    gap = raced(results, [[0.8, 0.4, np.nan, 0.4], [np.nan, 0.5, np.nan, 0.4]])
    (late,) = Training().numbers(gap)["sooner"]
    assert "was not faster: it reached" in late
    assert "after 100 steps, 1 times" in late


@pytest.mark.parametrize("changed", [(), ("network",), ("lr_final", "batch")])
def test_runs_that_differ_in_more_than_a_recipe_changes_are_not_raced(results, changed):
    assert Training().numbers(raced(results, [[2, 1, 1, 1], [1, 1, 1, 1]], changed))["sooner"] == []


def test_times_of_runs_are_shown(results):
    ds = results.training(2)
    table = Training().section(ds).parts[-2]
    recorded = {model["name"]: model["seconds"] for model in json.loads(ds.attrs["provenance"])["models"]}
    assert table.head[-1] == "time"
    assert [row[-1] for row in table.rows] == [duration(recorded[name]) for name in ds["model"].values]
    assert Training().numbers(ds)["seconds"] == recorded


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (368.07, "6 min 8 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_times_are_said_in_two_units_at_most(seconds, said):
    assert duration(seconds) == said
