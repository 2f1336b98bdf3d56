import pytest
import torch

from consistency_lab.contrast.gan import GAN_KIND
from consistency_lab.contrast.networks import DISCRIMINATORS, GENERATORS
from consistency_lab.contrast.settings import GANSettings
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.training.describing import changed_settings, differences
from consistency_lab.training.momentum import MOMENTUM_RULES
from consistency_lab.training.optimizers import OPTIMIZERS
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.train import training_spec

REGISTRIES = {
    "network": NETWORKS,
    "schedule": SCHEDULES,
    "predicts": PREDICTIONS,
    "timesteps": TIMESTEPS,
    "optimizer": OPTIMIZERS,
    "momentum": MOMENTUM_RULES,
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(40), "few")


def spec(images, **changes):
    return training_spec(images, TrainingSettings.of(**changes), CPU)


def changed(images, **changes):
    return changed_settings(spec(images, **changes)["settings"], TrainingSettings(), REGISTRIES)


def test_defaults_say_nothing_and_changes_say_themselves_alone(images):
    assert changed(images) == []
    assert changed(images, lr=0.01, steps=7) == ["steps=7", "lr=0.01"]
    assert changed(images, network="mlp(width=16)") == ["network=mlp(width=16)"]
    assert changed(images, network="unet(width=8)", timesteps="clts") == ["network=unet(width=8)", "timesteps=clts"]
    assert changed(images, seed=3) == ["seed=3"]
    assert changed(images, noise_seed=2) == ["init_seed=0", "order_seed=0", "noise_seed=2"]


def test_a_network_of_ones_own_and_a_start_are_told_apart(images):
    own = {"name": "own", "module": "Net", "code": "c" * 32, "weights": "1" * 32}
    plain = spec(images)
    first = {**plain, "settings": {**plain["settings"], "network": own}}
    second = {**first, "settings": {**plain["settings"], "network": {**own, "weights": "2" * 32}}}
    assert changed_settings(first["settings"], TrainingSettings(), REGISTRIES) == [
        "network=Net(code cccc, weights 1111)"
    ]
    assert differences([first, second]) == ["network.weights=11111111", "network.weights=22222222"]
    stopped = {**plain, "stopped": 50, "start": {"weights": "3" * 32, "steps": 7}}
    assert differences([plain, stopped]) == ["", "stopped=50, start.weights=33333333, start.steps=7"]


def test_a_default_with_options_of_its_own_is_a_default(images):
    def said(**changes):
        made = GAN_KIND.spec(images, GANSettings.of(**changes), CPU)
        return changed_settings(made["settings"], GANSettings(), REGISTRIES)

    assert said() == []
    assert said(optimizer="adam") == ["optimizer=adam"]
    assert said(discriminator="conv(width=16)") == ["discriminator=conv(width=16)"]


def test_differences_are_what_is_not_alike(images):
    specs = [spec(images, lr=0.01), spec(images, lr=0.02)]
    assert differences(specs) == ["lr=0.01", "lr=0.02"]
    assert differences([specs[0], specs[0]]) == ["", ""]
    assert differences([spec(images, network="mlp"), spec(images)]) == ["network=mlp", "network=unet"]
    assert differences([spec(images, network="mlp(width=8)"), spec(images, network="mlp")])[0] == "network.width=8"
    other = spec(images.take(range(30), "few"))
    first, second = differences([spec(images), other])
    assert "data.images=40" in first
    assert "data.images=30" in second
    assert f"data.fingerprint={images.fingerprint[:8]}" in first
