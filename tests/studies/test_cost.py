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
    monkeypatch.setattr(cost, "_LONG_ENOUGH", 0.01)
    images = load_images("digits").take(range(100), "some")
    small = {"steps": 50, "batch": 16}
    settings = {
        "model": TrainingSettings(network="mlp(width=8, depth=1)", **small),
        "gan": GANSettings(generator="dense(width=8)", discriminator="dense(width=8)", **small),
        "vae": VAESettings(autoencoder="conv(latent=6, width=4)", **small),
    }[kind]
    assert 0 < seconds_per_step(images, settings, torch.device("cpu")) < 60
    assert 0 < seconds_per_image(images, settings, torch.device("cpu")) < 60
