"""What a step takes: all contestants in turns, so that what a machine does meanwhile is the same for all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.devices import machine_name
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.paper.race import pace
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.pace import ROUNDS, WARM_UP, known_pace, measured_pace, works_of
from consistency_lab.paper.race.race import race
from consistency_lab.paper.race.running import RaceRun, Watch
from consistency_lab.paper.race.table import race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.studies.local_executor import LocalExecutor
from consistency_lab.training.settings import TrainingSettings

BASE = TrainingSettings(network="mlp(width=16, depth=1)", steps=30, batch=16, snapshots=0)
HEAVY = BASE.replace(predicts="gaussian")
RUNS = [
    RaceRun("uniform", BASE),
    RaceRun("decay", BASE.replace(lr_final=0.1, lr=3e-3, steps=20, ema_half_life=0.1)),
    RaceRun("heavy", HEAVY),
]


@pytest.fixture(scope="module")
def watch():
    whole = load_images("digits")
    classifier = train_classifier(whole.all(), whole.labels, "digits", steps=5)
    return Watch(*whole.split(200, 100, seed=0), classifier, batch=16, every=10, count=20)


@pytest.fixture
def clock(monkeypatch):
    """Steps that take what ``cost`` says, on a machine whose speed is ``drift(step)``; no time passes otherwise."""
    state = SimpleNamespace(now=0.0, steps=0, cost=lambda settings: 1.0, drift=lambda step: 1.0, asked=[])

    def steps(images, settings, device):
        while True:
            state.asked.append(settings)
            state.now += state.cost(settings) * state.drift(state.steps)
            state.steps += 1
            yield 0.0

    monkeypatch.setattr(pace, "perf_counter", lambda: state.now)
    monkeypatch.setattr(pace, "losses_unkept", steps)
    return state


def test_a_machine_that_slows_down_slows_all_alike(watch, clock, tmp_path):
    """Run after run, the second of two on a machine that is soon three times as slow would seem three times as dear."""
    clock.cost = lambda settings: 1.25 if settings == HEAVY else 1.0
    clock.drift = lambda step: 1.0 + 2.0 * (step > 40)  # from the fifth round that counts
    seconds = measured_pace(watch, RUNS, Rows(tmp_path / "r.jsonl"), LocalExecutor()).seconds
    assert seconds["heavy"] / seconds["uniform"] == pytest.approx(1.25)


def test_what_other_programs_take_is_left_out(watch, clock, tmp_path):
    noise = np.random.default_rng(0).random(1000)
    clock.cost = lambda settings: 2.0 if settings == HEAVY else 1.0
    clock.drift = lambda step: 1.0 if noise[step] > 0.3 else 10.0 + noise[step]
    seconds = measured_pace(watch, RUNS, Rows(tmp_path / "r.jsonl"), LocalExecutor()).seconds
    assert seconds == {"uniform": 1.0, "decay": 1.0, "heavy": 2.0}


def test_the_same_work_is_timed_once_and_warm_ups_do_not_count(watch, clock, tmp_path):
    clock.drift = lambda step: 0.01 if step < 2 * WARM_UP else 1.0
    rows = Rows(tmp_path / "r.jsonl")
    assert known_pace(watch, RUNS, rows) is None
    found = measured_pace(watch, RUNS, rows, LocalExecutor())
    assert len(works_of(RUNS)) == 2
    assert clock.steps == 2 * (WARM_UP + ROUNDS)
    assert found.seconds == {"uniform": 1.0, "decay": 1.0, "heavy": 1.0}
    assert found.machine == machine_name(torch.device("cpu"))
    assert measured_pace(watch, RUNS, rows, LocalExecutor()) == known_pace(watch, RUNS, rows) == found
    assert clock.steps == 2 * (WARM_UP + ROUNDS)  # read, not timed again
    assert known_pace(watch, RUNS[:2], rows) is None  # other company is another measurement


def test_who_steps_first_changes_from_round_to_round(watch, clock, tmp_path):
    """A step may cost more after one that fills the caches: no contestant follows the same other always."""
    measured_pace(watch, RUNS, Rows(tmp_path / "r.jsonl"), LocalExecutor())
    first = [settings == HEAVY for settings in clock.asked[::2]]
    assert 0.3 < np.mean(first) < 0.7
    assert all(a != b for a, b in zip(clock.asked[::2], clock.asked[1::2], strict=True))


def test_seconds_of_a_race_are_steps_times_the_pace(watch, tmp_path):
    contestants = [Contestant("uniform", BASE, "control"), Contestant("heavy", HEAVY, "recipe")]
    soon = []
    result = race(contestants, watch, Rows(tmp_path / "r.jsonl"), seeds=[0, 1], targets=(0.5,), live=soon.append)
    assert soon[0]["seconds_per_step"].isnull().all()
    assert set(race_table(soon[0])["seconds_bound"]) == {"unknown"}
    table = race_table(result).set_index("contestant")
    per_step = result["seconds_per_step"]
    assert (per_step > 0).all()
    ratio = np.exp(np.log(per_step.sel(contestant="uniform") / per_step.sel(contestant="heavy")).mean())
    row = table.loc["heavy"]
    assert row["seconds_speedup"] == pytest.approx(row["speedup"] * float(ratio))
    assert result["machine"].dims == ("seed",)
    assert len(soon) == 2
    assert soon[-1].identical(result)  # what was written last has them too
