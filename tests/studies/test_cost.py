import torch

from consistency_lab.data.sources import load_images
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import fleet_cost
from consistency_lab.studies.fleet import train_fleet
from consistency_lab.training.settings import TrainingSettings


def test_what_the_store_has_costs_nothing_and_twins_are_timed_once(tmp_path, monkeypatch):
    images, store = load_images("digits").take(range(100), "some"), Store(tmp_path)
    tiny = {"network": "mlp(width=8, depth=1)", "batch": 16, "snapshots": 0}
    jobs = {f"m{seed}": TrainingSettings.of(**tiny, steps=10, seed=seed) for seed in range(3)}
    jobs["long"] = TrainingSettings.of(**tiny, steps=20)
    asked = []
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_step", lambda *args: asked.append(args[1]) or 0.5)
    train_fleet(images, {"m0": jobs["m0"]}, store)
    assert fleet_cost(images, jobs, store, torch.device("cpu")) == {"m0": 0.0, "m1": 5.0, "m2": 5.0, "long": 10.0}
    assert len(asked) == 2


def test_steps_are_timed(tmp_path):
    from consistency_lab.studies.cost import seconds_per_step

    images = load_images("digits").take(range(100), "some")
    settings = TrainingSettings.of(network="mlp(width=8, depth=1)", batch=16, steps=50)
    assert 0 < seconds_per_step(images, settings, torch.device("cpu")) < 60
