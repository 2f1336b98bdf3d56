from types import SimpleNamespace

import numpy as np
import pytest
import torch

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.data.sources import load_images
from consistency_lab.store.runs import Store
from consistency_lab.studies import cost
from consistency_lab.studies.cost import fleet_cost, seconds_per_image, seconds_per_step
from consistency_lab.studies.fleet import train_fleet
from consistency_lab.training.settings import TrainingSettings


def test_what_the_store_has_costs_nothing_and_twins_are_timed_once(tmp_path, monkeypatch):
    images, store = load_images("digits").take(range(100), "some"), Store(tmp_path)
    tiny = {"network": "mlp(width=8, depth=1)", "batch": 16, "snapshots": 0}
    jobs = {f"m{seed}": TrainingSettings.of(**tiny, steps=10, seed=seed) for seed in range(3)}
    jobs["long"] = TrainingSettings.of(**tiny, steps=20)
    asked = []
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_step", lambda *args: asked.append(args[1]) or 0.5)
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_image", lambda *args: 0.1)
    train_fleet(images, {"m0": jobs["m0"]}, store)
    assert fleet_cost(images, jobs, store, torch.device("cpu"), {"m0": 20, "m1": 30}) == {
        "m0": (0.0, 2.0),
        "m1": (5.0, 3.0),
        "m2": (5.0, 0.0),
        "long": (10.0, 0.0),
    }
    assert len(asked) == 2


@pytest.mark.parametrize("kind", ["model", "gan", "vae"])
def test_steps_and_images_of_any_kind_are_timed(kind, monkeypatch):
    monkeypatch.setattr(cost, "_ENOUGH", 0.01)
    images = load_images("digits").take(range(100), "some")
    small = {"steps": 50, "batch": 16}
    settings = {
        "model": TrainingSettings(network="mlp(width=8, depth=1)", **small),
        "gan": GANSettings(generator="dense(width=8)", discriminator="dense(width=8)", **small),
        "vae": VAESettings(autoencoder="conv(latent=6, width=4)", **small),
    }[kind]
    assert 0 < seconds_per_step(images, settings, torch.device("cpu")) < 60
    assert 0 < seconds_per_image(images, settings, torch.device("cpu")) < 60


STEP = 0.002


@pytest.mark.parametrize("start", [0.01, 1.0], ids=["at once", "after a second"])
@pytest.mark.parametrize("step", [0.0005, 0.01, 1.0])
def test_a_busy_machine_makes_no_step_free(monkeypatch, start, step):
    """A clock that other programs hold up: a run takes up to twice its own time, and every two seconds of it something stalls."""
    draws = np.random.default_rng(0)
    clock = [0.0]

    def train(images, *, settings, **_):
        own = start + settings.steps * step
        clock[0] += own * draws.uniform(1, 2) + draws.exponential(0.3, draws.poisson(0.5 * own)).sum()

    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(cost, "kind_of", lambda settings: SimpleNamespace(train=train))
    found = np.array([seconds_per_step(None, TrainingSettings(), torch.device("cpu")) for _ in range(50)])
    assert (found > step / 2).all()
    assert (found < 4 * step).all()
    assert step < np.median(found) < 2 * step  # what a step takes there, with what else runs


def test_a_quiet_machine_tells_the_step_to_rounding(monkeypatch):
    clock, runs = [0.0], []

    def train(images, *, settings, **_):
        runs.append(settings.steps)
        clock[0] += 0.1 + settings.steps * STEP

    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(cost, "kind_of", lambda settings: SimpleNamespace(train=train))
    assert seconds_per_step(None, TrainingSettings(), torch.device("cpu")) == pytest.approx(STEP)
    assert sum(runs) * STEP < 5  # it is the price of a --dry-run


def test_a_clock_that_stands_still_ends_too(monkeypatch):
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(cost, "kind_of", lambda settings: SimpleNamespace(train=lambda *a, **k: None))
    assert seconds_per_step(None, TrainingSettings(), torch.device("cpu")) == 0.0
