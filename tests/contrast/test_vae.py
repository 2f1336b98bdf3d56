import pytest
import torch

from consistency_lab.contrast.settings import VAESettings
from consistency_lab.contrast.vae import VAE_KIND, train_vae
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.store.runs import Store
from consistency_lab.training import run_io
from consistency_lab.training.loop import TrainingLoop

TINY = {
    "autoencoder": "conv(latent=6, width=4)",
    "steps": 30,
    "batch": 16,
    "lr_warmup": 5,
    "snapshots": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(100), "some digits")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


def test_equal_specs_give_equal_bits_and_each_stream_matters(images):
    first = weights(train_vae(images, **TINY))
    assert torch.equal(first, weights(train_vae(images, **TINY)))
    for stream in ("init_seed", "order_seed", "noise_seed"):
        assert not torch.equal(first, weights(train_vae(images, **TINY, **{stream: 9})))


def test_a_stopped_run_goes_on_to_the_bit(images, tmp_path, monkeypatch):
    settings = {**TINY, "steps": 60}
    whole = train_vae(images, **settings)
    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    original = TrainingLoop._advance

    def stop_late(loop):
        if loop.step == 55:
            raise KeyboardInterrupt
        return original(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", stop_late)
    with pytest.raises(KeyboardInterrupt):
        train_vae(images, **settings, store=tmp_path)
    monkeypatch.undo()
    (run,) = Store(tmp_path).runs()
    assert run_io.load_state(run.folder / "checkpoint.pt")["loop"]["step"] == 50
    assert torch.equal(weights(whole), weights(train_vae(images, **settings, store=tmp_path)))


def test_the_same_spec_is_trained_once_and_loads(images, tmp_path, monkeypatch):
    first = train_vae(images, **TINY, store=tmp_path)
    monkeypatch.setattr(run_io, "_train_in", lambda *_: pytest.fail("trained twice"))
    assert torch.equal(weights(first), weights(train_vae(images, **TINY, store=tmp_path)))
    loaded = VAE_KIND.load(first.folder, device="cpu")
    assert torch.equal(loaded.generate(SharedNoise(0), range(4)), first.generate(SharedNoise(0), range(4)))
    assert (loaded.name, loaded.facts["kind"], loaded.facts["beta"]) == ("vae-conv-s0", "vae", 0.1)
    with pytest.raises(UserError, match="'ema' or 'raw'"):
        VAE_KIND.load(first.folder, weights="best")


def test_an_image_depends_on_seed_and_index_alone(images):
    model = train_vae(images, **TINY)
    together = model.generate(SharedNoise(3), range(20))
    assert together.shape == (20, *images.shape)
    assert together.abs().max() <= 1
    assert torch.allclose(model.generate(SharedNoise(3), [19, 4]), together[[19, 4]], atol=1e-5)
    assert not torch.allclose(model.generate(SharedNoise(4), [19, 4]), together[[19, 4]], atol=1e-5)
    assert model.noise_shape == (6,)


def test_training_uses_the_latent(images):
    model = train_vae(images, **{**TINY, "autoencoder": "conv(latent=8, width=8)", "steps": 300, "batch": 50})
    x0 = images.all()
    with torch.no_grad():
        again = model.module.generate(model.module.encode(x0)[0])
    assert (again - x0).square().mean() < 0.5 * (x0 - x0.mean(0)).square().mean()


def test_beta_squeezes_the_posterior(images):
    def spread(beta):
        model = train_vae(images, **{**TINY, "steps": 150}, beta=beta)
        with torch.no_grad():
            return float(model.module.encode(images.all())[0].square().mean())

    assert spread(10.0) < 0.1 * spread(0.01)


def test_settings_survive_the_spec(images):
    settings = VAESettings.of(beta=1, autoencoder="conv(width=8)", seed=2**40, init_seed=1)
    spec = VAE_KIND.spec(images, settings, torch.device("cpu"))
    assert VAE_KIND.spec(images, VAESettings.from_spec(spec["settings"]), torch.device("cpu")) == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autoencoder": "vq"}, "unknown autoencoder 'vq'"),
        ({"autoencoder": "conv(latent=0)"}, "latent is a whole number of 1 or more, not 0"),
        ({"beta": 0.0}, "beta must be above 0"),
        ({"penalty": 0.1}, "unknown training setting 'penalty'"),
        ({"batch": 500}, "larger than the 100 images"),
    ],
)
def test_wrong_input_leaves_nothing_behind(images, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train_vae(images, **{**TINY, **settings}, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_moves_as_a_module_does(images):
    model = train_vae(images, **TINY)
    assert model.to("cpu") is model
    assert model.to("meta").device.type == "meta"
    with pytest.raises(UserError, match="cannot be used here"):
        model.to("cuda:77")
