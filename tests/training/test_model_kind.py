"""What holds for every kind of model."""

import pytest
import torch

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.model_kinds import MODEL_KINDS, kind_of
from consistency_lab.training.settings import TrainingSettings

TINY = {"steps": 2, "batch": 8, "lr_warmup": 0, "snapshots": 0}
SETTINGS = {
    "model": TrainingSettings.of(**TINY, network="mlp(width=16, depth=1)"),
    "gan": GANSettings.of(
        **TINY, generator="dense(latent=5, width=16, depth=1)", discriminator="dense(width=16, depth=1)"
    ),
    "vae": VAESettings.of(**TINY, autoencoder="conv(latent=3, width=8)"),
}


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(20), "few digits")


@pytest.mark.parametrize("name", MODEL_KINDS)
def test_a_kind_trains_the_same_model_with_a_store_and_without(images, tmp_path, name):
    kind, settings = MODEL_KINDS[name], SETTINGS[name]
    assert kind_of(settings) is kind
    free = kind.train(images, settings=settings, device="cpu", progress=False)
    kept = kind.train(images, settings=settings, device="cpu", progress=False, store=tmp_path)
    modules = [getattr(model, "denoiser", None) or model.module for model in (free, kept)]
    states = [module.state_dict() for module in modules]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert free.name == kept.name == kind.model_name(settings)
    assert {key: kept.facts[key] for key in free.facts} == {**free.facts, "seconds": kept.facts["seconds"]}
    assert set(kept.facts) - set(free.facts) == {"run"}
    assert free.facts["seconds"] >= 0
    assert kind.noise_shape(kept.facts["spec"]) == tuple(kept.noise_shape)
    assert not any(module.training for module in modules)


@pytest.mark.parametrize("name", MODEL_KINDS)
def test_settings_of_another_kind_are_refused(images, name):
    other = next(settings for each, settings in SETTINGS.items() if each != name)
    with pytest.raises(UserError, match=rf"settings are {MODEL_KINDS[name].settings.__name__}\(...\)"):
        MODEL_KINDS[name].train(images, settings=other)
