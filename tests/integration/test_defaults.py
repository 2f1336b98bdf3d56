"""torch's default number type and device are the caller's own business: no spec, no weight and no number depends on them."""

import numpy as np
import pytest
import torch

import consistency_lab as cl
from consistency_lab.networks.registry import NETWORKS, build_network
from consistency_lab.probes.operators import Hessian
from consistency_lab.training.weighting import WEIGHTINGS

SMALL = {"steps": 8, "batch": 16, "lr_warmup": 2, "snapshots": 2}
NETWORK = "mlp(width=16, depth=1)"


@pytest.fixture(params=["float64", "meta"])
def elsewhere(request):
    """Call a function under other defaults; on the meta device a tensor that was made by default has no numbers at all."""

    def call(function, *given, **options):
        try:
            if request.param == "meta":
                torch.set_default_device("meta")
            else:
                torch.set_default_dtype(torch.float64)
            return function(*given, **options)
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)

    return call


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(64), "some digits")


@pytest.fixture(scope="module")
def models(images):
    return [cl.train(images, network=NETWORK, **SMALL, seed=seed) for seed in range(2)]


def same(a, b):
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        numbers = [name for name in a.data_vars if a[name].dtype.kind in "fiu"]
        assert numbers
        for name in numbers:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert a.attrs.get("warnings") == b.attrs.get("warnings")


def same_weights(a, b):
    (a, b) = ((getattr(m, "denoiser", None) or m.module).state_dict() for m in (a, b))
    assert a.keys() == b.keys()
    for key, value in a.items():
        same(value, b[key])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timesteps": "loss_second_moment(history=1, cells=2)", "optimizer": "adamw", "momentum": "mdlrc"},
        {"conditional": True, "weighting": "speed", "timesteps": "speed", "predicts": "edm"},
        {"schedule": "edm", "timesteps": "clusters(axis='log_snr')", "optimizer": "sgd", "lr": 0.01},
        {"network": "dit(width=16, depth=1, heads=2)", "timesteps": "stratified", "schedule": "flow"},
    ],
)
def test_the_same_spec_is_the_same_model(images, elsewhere, tmp_path, settings):
    settings = {"network": NETWORK, **SMALL, **settings}
    plain = cl.train(images, **settings, store=tmp_path / "a", device="cpu")
    other = elsewhere(cl.train, images, **settings, store=tmp_path / "b", device="cpu")
    assert plain.folder.name == other.folder.name
    assert torch.get_default_dtype() == torch.float32
    same_weights(plain, other)
    same_weights(plain, elsewhere(cl.load, str(plain.folder), device="cpu"))


def test_networks_and_autoencoders_too(images, elsewhere):
    small = {**SMALL, "steps": 3, "device": "cpu"}
    same_weights(cl.train_gan(images, **small), elsewhere(cl.train_gan, images, **small))
    a, b = cl.train_vae(images, **small), elsewhere(cl.train_vae, images, **small)
    same_weights(a, b)
    same(a.generate(cl.SharedNoise(0), range(3)), elsewhere(a.generate, cl.SharedNoise(0), range(3)))


def test_images_too(elsewhere):
    for name in ("digits", "digits(size=4)", "gaussian(count=8)", "mixture(count=8)"):
        same(cl.load_images(name).all()[:4], elsewhere(lambda n=name: cl.load_images(n).all()[:4]))


@pytest.mark.parametrize("method", ["ddim", "heun", "dpm++2m", "ancestral"])
def test_samples_too(models, elsewhere, method):
    sampler, noise = cl.Sampler(method, steps=4), cl.SharedNoise(0)
    same(models[0].generate(noise, range(3), sampler), elsewhere(models[0].generate, noise, range(3), sampler))

    def last():
        *_, step = models[0].path(noise, range(3), sampler)
        return step.x_t

    same(last(), elsewhere(last))


def test_comparisons_too(models, images, elsewhere):
    metrics = ("mse", "cosine", "psnr", "ssim(sigma=0.5)", "band(high=0.5)")
    known = {"count": 4, "images": images, "sampler": cl.Sampler(steps=3), "levels": 2, "metrics": metrics}
    same(cl.compare(models, **known), elsewhere(cl.compare, models, **known))


@pytest.mark.parametrize(
    "probe",
    [
        lambda model, images: cl.probe_difficulty(model, images, count=4, bins=3, detail=4),
        lambda model, images: cl.probe_landscape(model, images, count=4),
        lambda model, images: cl.probe_structure(model, images, count=3, levels=3, sampler=cl.Sampler(steps=4)),
        lambda model, images: cl.probe_plane(model, images, count=2, points=5),
        lambda model, images: (
            Hessian(s := cl.diffusion_subject(model, images, count=4, bins=2))
            @ torch.linspace(-1, 1, sum(p.numel() for p in s.module.parameters()), dtype=torch.float32, device="cpu")
        ),
    ],
)
def test_probes_too(models, images, elsewhere, probe):
    same(probe(models[0], images), elsewhere(probe, models[0], images))


@pytest.mark.parametrize("name", NETWORKS.names("[!u]*"))
def test_networks_are_float32_on_the_cpu(elsewhere, name):
    text = {"dit": "dit(width=16, depth=1, heads=2)", "dit-s2": "dit-s2(width=24, depth=1)"}.get(name, name)
    a, b = build_network(text, (1, 8, 8), 3), elsewhere(build_network, text, (1, 8, 8), 3)
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    same(a(x, t), elsewhere(b, x, t))


@pytest.mark.parametrize("schedule", cl.SCHEDULES.names())
def test_schedules_and_what_is_made_of_them_too(elsewhere, schedule):
    def numbers():
        made = cl.SCHEDULES.build(schedule)
        t = made.grid(5)[:-1]
        parts = [made.alpha(0.3), made.sigma(0.3), made.log_snr(t), made.grid(5), made.time_from_log_snr(0.5)]
        parts += [WEIGHTINGS.build(name).weights(made, t, "v") for name in ("p2", "min-snr")]
        for text in ("uniform", "stratified", "clts", "clusters(axis='log_snr')"):
            sampler = cl.TIMESTEPS.build(text, made, 10)
            parts += sampler.sample(4, 1, torch.Generator().manual_seed(0))
        return torch.cat([part.flatten() for part in parts])

    same(numbers(), elsewhere(numbers))
    noise = cl.SharedNoise(3)
    same(noise.increment([1], (2,), 0.2, 0.4), elsewhere(noise.increment, [1], (2,), 0.2, 0.4))


def test_the_callers_defaults_come_back_after_an_error(images):
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(cl.UserError):
            cl.train(images, network="nothing")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
