import pytest
import torch

from consistency_lab.contrast.batches import NoisedBatches
from consistency_lab.contrast.gan import GAN_KIND, AdversarialLoop, train_gan
from consistency_lab.contrast.settings import GANSettings
from consistency_lab.data.sources import load_images
from consistency_lab.data.synthetic import gaussian
from consistency_lab.diffusion.model import described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training import run_io
from consistency_lab.training.train import training_curves

LATENT = "latent(latent=6, width=4)"
IMAGE = "image(network='mlp(width=16, depth=1)')"
TINY = {
    "generator": LATENT,
    "discriminator": "conv(width=4)",
    "steps": 30,
    "batch": 16,
    "lr_warmup": 5,
    "snapshots": 2,
    "device": "cpu",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(100), "some digits")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


def tiny_loop(images, **changes):
    settings = GANSettings.of(**{k: v for k, v in TINY.items() if k != "device"} | changes)
    module = GAN_KIND.build(GAN_KIND.spec(images, settings, CPU))
    return AdversarialLoop(module, NoisedBatches(images, settings, module.noise_shape, 2, CPU), settings, CPU)


def test_equal_specs_give_equal_bits_and_each_stream_matters(images):
    first = weights(train_gan(images, **TINY))
    assert torch.equal(first, weights(train_gan(images, **TINY)))
    for stream in ("init_seed", "order_seed", "noise_seed"):
        assert not torch.equal(first, weights(train_gan(images, **TINY, **{stream: 9})))


def test_each_turn_moves_its_own_part(images):
    loop = tiny_loop(images, lr_ratio=1e-30)
    before = {key: value.clone() for key, value in loop.module.state_dict().items()}
    next(iter(loop))
    after = loop.module.state_dict()
    moved = {key.partition(".")[0] for key in before if not torch.allclose(before[key], after[key], atol=1e-9)}
    assert moved == {"generator"}
    assert all(p.requires_grad for p in loop.module.parameters())


def test_the_ratio_belongs_to_the_discriminator(images):
    loop = tiny_loop(images, lr_ratio=2.0, lr_warmup=0)
    step = next(iter(loop))
    assert step.lr == pytest.approx(loop.settings.lr)
    assert loop.descents["discriminator"].rates[0] == pytest.approx(2 * loop.settings.lr)


@pytest.mark.parametrize("generator", [LATENT, IMAGE])
def test_a_stopped_run_goes_on_to_the_bit(images, tmp_path, monkeypatch, generator):
    settings = {**TINY, "generator": generator, "steps": 60}
    whole = train_gan(images, **settings)
    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    original, steps = AdversarialLoop._advance, []

    def stop_late(loop):
        if loop.step == 55:
            raise KeyboardInterrupt
        return original(loop)

    def counted(loop):
        steps.append(loop.step)
        return original(loop)

    monkeypatch.setattr(AdversarialLoop, "_advance", stop_late)
    with pytest.raises(KeyboardInterrupt):
        train_gan(images, **settings, store=tmp_path)
    (run,) = Store(tmp_path).runs()
    with pytest.raises(UserError, match="not a finished gan"):
        GAN_KIND.load(run)
    monkeypatch.setattr(AdversarialLoop, "_advance", counted)
    resumed = train_gan(images, **settings, store=tmp_path)
    assert steps[0] == 50  # the last checkpoint, not the beginning
    assert torch.equal(weights(whole), weights(resumed))
    assert [record["step"] for record in Run.open(resumed.folder).records()] == [25, 50, 60]


def test_the_same_spec_is_trained_once(images, tmp_path, monkeypatch):
    first = train_gan(images, **TINY, store=tmp_path)
    monkeypatch.setattr(run_io, "_train_in", lambda *_: pytest.fail("trained twice"))
    again = train_gan(images, **{**TINY, "generator": "latent(width=4, latent=6)"}, store=tmp_path, name="other")
    assert again.name == "other"
    assert torch.equal(weights(first), weights(again))
    monkeypatch.undo()
    other = train_gan(images, **{**TINY, "penalty": 0.0}, store=tmp_path)
    assert not torch.equal(weights(first), weights(other))
    assert len(Store(tmp_path).runs()) == 2
    assert torch.equal(weights(first), weights(train_gan(images, **TINY, store=tmp_path, force=True)))


def test_defaults_of_the_inner_network_are_part_of_the_spec(images):
    short, long = (
        GAN_KIND.spec(images, GANSettings(generator=f"image(network='{network}')"), CPU)
        for network in ("unet", "unet(width=16)")
    )
    assert short == long
    assert "multipliers" in short["settings"]["generator"]["network"]
    assert GAN_KIND.spec(images, GANSettings.from_spec(short["settings"]), CPU) == short


def test_the_log_has_both_losses(images, tmp_path):
    model = train_gan(images, **TINY, store=tmp_path)
    record = Run.open(model.folder).records()[-1]
    assert {"loss", "discriminator_loss", "lr", "beta1", "seconds"} <= record.keys()
    assert training_curves([model])["loss"].shape == (1, 2)


@pytest.mark.parametrize("generator", [LATENT, IMAGE])
def test_an_image_depends_on_seed_and_index_alone(images, generator):
    model = train_gan(images, **{**TINY, "generator": generator})
    noise = SharedNoise(3)
    together = model.generate(noise, range(20))
    assert together.shape == (20, *images.shape)
    assert together.dtype == torch.float32
    assert together.abs().max() <= 1
    assert together.std(0).max() > 0
    assert torch.equal(together, model.generate(SharedNoise(3), range(20)))
    some = model.generate(noise, [19, 4, 7])
    assert torch.allclose(some, together[[19, 4, 7]], atol=1e-5)
    assert not torch.allclose(some, model.generate(SharedNoise(4), [19, 4, 7]), atol=1e-5)
    assert model.generate(noise, []).shape == (0, *images.shape)


def test_noise_has_the_shape_of_the_generator(images):
    assert train_gan(images, **TINY).noise_shape == (6,)
    assert train_gan(images, **{**TINY, "generator": IMAGE}).noise_shape == images.shape


def test_a_loaded_model_generates_what_it_did(images, tmp_path):
    model = train_gan(images, **TINY, store=tmp_path)
    loaded, raw = GAN_KIND.load(model.folder, device="cpu"), GAN_KIND.load(model.folder, device="cpu", weights="raw")
    assert torch.equal(model.generate(SharedNoise(0), range(4)), loaded.generate(SharedNoise(0), range(4)))
    assert not torch.equal(weights(raw), weights(loaded))
    assert (raw.facts["weights"], loaded.facts["weights"]) == ("raw", "ema")
    assert loaded.facts["kind"] == "gan"
    assert loaded.facts["seeds"] == {"init": 0, "order": 0, "noise": 0}
    assert "spec" not in described(loaded)
    path = model.folder / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(StoreError, match=r"ema\.safetensors"):
        GAN_KIND.load(model.folder)


def test_the_generator_learns_the_mean(images):
    untrained, trained = (
        train_gan(images, **{**TINY, "discriminator": "conv(width=8)", "steps": steps, "lr": 2e-3})
        for steps in (1, 200)
    )
    mean = images.all().mean(0)
    far, near = ((m.generate(SharedNoise(0), range(200)).mean(0) - mean).square().mean() for m in (untrained, trained))
    assert near < 0.8 * far


def test_bfloat16_trains(images):
    half = weights(train_gan(images, **TINY, precision="bfloat16"))
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert not torch.equal(half, weights(train_gan(images, **TINY)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generator": "stylegan"}, "unknown generator 'stylegan'"),
        ({"generator": "latent(latnet=3)"}, "Did you mean 'latent'"),
        ({"generator": "latent(latent=0)"}, "latent is a whole number of 1 or more, not 0"),
        ({"generator": "latent(width=6)"}, "multiple of 4"),
        ({"generator": "image(network='unett')"}, "Did you mean 'unet'"),
        ({"discriminator": "mlp"}, "unknown discriminator"),
        ({"penalty": -1.0}, "penalty must be 0 or more"),
        ({"lr_ratio": 0.0}, "lr_ratio must be above 0"),
        ({"batch": 500}, "larger than the 100 images"),
        ({"beta": 0.1}, "unknown training setting 'beta'"),
        ({"steps": "many"}, "expected int"),
        ({"optimizer": "sgd(momentum=0.0)", "momentum": "mdlrc"}, "momentum 0, which cannot decay"),
    ],
)
def test_wrong_input_leaves_nothing_behind(images, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train_gan(images, **{**TINY, **settings}, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_of_odd_size_are_refused():
    with pytest.raises(UserError, match="multiples of 4"):
        train_gan(gaussian(count=32, size=10), **TINY)


def test_divergence_is_named(images):
    with pytest.raises(UserError, match="diverged"):
        train_gan(images, **{**TINY, "optimizer": "sgd(momentum=0.0)", "lr": 1e30})


def test_another_kind_is_refused(images, tmp_path):
    from consistency_lab.contrast.vae import train_vae

    vae = train_vae(images, autoencoder="conv(latent=4, width=4)", steps=5, batch=16, store=tmp_path, device="cpu")
    with pytest.raises(UserError, match="not a finished gan"):
        GAN_KIND.load(vae.folder)


def test_settings_are_read_like_those_of_training(tmp_path):
    path = tmp_path / "gan.json"
    path.write_text('{"penalty": 1, "seed": 4}')
    assert GANSettings.read(path) == GANSettings(penalty=1.0, seed=4)
