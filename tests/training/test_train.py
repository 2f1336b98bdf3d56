import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import StoreError, UserError
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.recipe import Recipe
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training import run_io
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.loop import TrainingLoop, annealing, stream_generator
from consistency_lab.training.run_io import snapshot_steps
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.timesteps.fixed import Uniform
from consistency_lab.training.train import (
    DenoisingBatches,
    build_denoiser,
    load_model,
    load_snapshots,
    settings_of,
    train,
    training_curves,
    training_spec,
)

TINY = {"network": "mlp(width=16, depth=1)", "steps": 60, "batch": 32, "lr_warmup": 5, "snapshots": 3}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(200), "some digits")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


def test_training_learns(images):
    untrained = train(images, **{**TINY, "steps": 1})
    trained = train(images, network="mlp(width=64, depth=1)", steps=300, batch=64)
    eps = SharedNoise(5).initial(range(200), images.shape)
    t = torch.linspace(0.001, 1, 200, dtype=torch.float64)
    with torch.no_grad():
        losses = [denoising_loss(m.denoiser, images.all(), t, eps).mean() for m in (untrained, trained)]
    assert losses[1] < 0.5 * losses[0]


def test_equal_specs_give_equal_bits_and_each_stream_matters(images):
    first = weights(train(images, **TINY))
    assert torch.equal(first, weights(train(images, **TINY)))
    streams = ("init_seed", "order_seed", "noise_seed")
    assert torch.equal(first, weights(train(images, **TINY, **dict.fromkeys(streams, 0))))
    for stream in streams:
        assert not torch.equal(first, weights(train(images, **TINY, **{stream: 9})))


def test_an_adaptive_sampler_resumes_with_its_loop(images):
    settings = TrainingSettings.of(**TINY, timesteps="loss_second_moment(history=2, cells=20)")

    def loop():
        denoiser = build_denoiser(training_spec(images, settings, CPU))
        return TrainingLoop(denoiser, denoising_loss, DenoisingBatches(images, settings, CPU), settings, CPU)

    whole, first, second = loop(), loop(), loop()
    losses = [float(step.loss) for step in whole]
    for step in first:
        if step.step == 40:
            break
    second.load_state_dict(first.state_dict())
    assert first.source.sampler.masses(40).std() > 0  # it has begun to adapt
    assert [float(step.loss) for step in second] == losses[40:]


def test_streams_are_separate(images):
    def first_batch(**seeds):
        source = DenoisingBatches(images, TrainingSettings.of(**TINY, **seeds), CPU)
        return source.batch(7).data

    x0, t, eps = first_batch()
    x1, t1, eps1 = first_batch(order_seed=4)
    assert not torch.equal(x0, x1)
    assert torch.equal(t, t1)
    assert torch.equal(eps, eps1)
    x2, t2, eps2 = first_batch(noise_seed=4)
    assert torch.equal(x0, x2)
    assert not torch.equal(t, t2)
    assert not torch.equal(eps, eps2)
    assert all(torch.equal(a, b) for a, b in zip(first_batch(init_seed=4), (x0, t, eps), strict=True))


def test_an_epoch_shows_every_image_once(images):
    source = DenoisingBatches(images, TrainingSettings.of(**{**TINY, "batch": 50}), CPU)
    seen = torch.cat([source.order(step) for step in range(4)])
    assert sorted(seen.tolist()) == list(range(200))
    assert not torch.equal(seen, torch.cat([source.order(step) for step in range(4, 8)]))


def test_the_same_spec_is_trained_once(images, tmp_path, monkeypatch):
    first = train(images, **TINY, store=tmp_path)
    monkeypatch.setattr(run_io, "_train_in", lambda *_: pytest.fail("trained twice"))
    again = train(images, **TINY, store=tmp_path, name="other name")
    assert again.name == "other name"
    assert torch.equal(weights(first), weights(again))
    monkeypatch.undo()
    assert torch.equal(weights(first), weights(train(images, **TINY, store=tmp_path, force=True)))
    assert torch.equal(weights(first), weights(train(images, **TINY)))  # the store changes nothing
    assert len(Store(tmp_path).runs()) == 1


def test_a_stopped_run_goes_on_to_the_bit(images, tmp_path, monkeypatch):
    whole = train(images, **TINY, timesteps="clts", momentum="mdlrc", store=tmp_path / "a")
    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    original = TrainingLoop._advance

    def stop_late(loop):
        if loop.step == 55:
            raise KeyboardInterrupt
        return original(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", stop_late)
    with pytest.raises(KeyboardInterrupt):
        train(images, **TINY, timesteps="clts", momentum="mdlrc", store=tmp_path / "b")
    (run,) = Store(tmp_path / "b").runs()
    assert not run.done
    with pytest.raises(UserError, match="not a finished model"):
        load_model(run)
    steps = []

    def counted(loop):
        steps.append(loop.step)
        return original(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", counted)
    resumed = train(images, **TINY, timesteps="clts", momentum="mdlrc", store=tmp_path / "b")
    assert steps[0] == 50  # the last checkpoint, not the beginning
    assert torch.equal(weights(whole), weights(resumed))
    logs = [[(r["step"], r["loss"], r["lr"]) for r in Run.open(m.folder).records()] for m in (whole, resumed)]
    assert logs[0] == logs[1]
    assert not (run.folder / "checkpoint.pt").exists()


def test_a_killed_process_leaves_a_run_that_goes_on(images, tmp_path):
    code = f"""
import consistency_lab as cl
from consistency_lab.training import run_io
run_io._CHECKPOINT_SECONDS = 0.0
images = cl.load_images("digits").take(range(200), "some digits")
settings = {TINY!r}
settings["steps"] = 100000
cl.train(images, **settings, store={str(tmp_path)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(1200):
        if list(tmp_path.glob("*/checkpoint.pt")):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (run,) = Store(tmp_path).runs()
    assert not run.done
    state = run_io.load_state(run.folder / "checkpoint.pt")
    assert state["loop"]["step"] >= 25
    with run.begin():  # the lock died with the process
        run.truncate_log(state["loop"]["step"])
    assert run.records()[-1]["step"] <= state["loop"]["step"]


def test_a_loaded_model_generates_what_it_did(images, tmp_path):
    model = train(images, **TINY, store=tmp_path)
    loaded = load_model(model.folder)
    assert torch.equal(model.generate(SharedNoise(0), range(4)), loaded.generate(SharedNoise(0), range(4)))
    raw = load_model(model.folder, weights="raw")
    assert not torch.equal(weights(raw), weights(loaded))
    assert raw.facts["weights"] == "raw"
    assert loaded.facts["weights"] == "ema"
    with pytest.raises(UserError, match="'ema' or 'raw'"):
        load_model(model.folder, weights="best")


def test_snapshots_end_with_the_model(images, tmp_path):
    model = train(images, **TINY, store=tmp_path)
    steps, models = zip(*load_snapshots(model), strict=True)
    assert list(steps) == snapshot_steps(TrainingSettings.of(**TINY))
    assert steps[-1] == 60
    assert torch.equal(weights(models[-1]), weights(model))
    assert not torch.equal(weights(models[0]), weights(model))
    curves = training_curves([model])
    assert curves["loss"].shape == (1, 3)
    assert list(curves.data_vars) == ["loss"]
    with pytest.raises(UserError, match="without a store"):
        next(load_snapshots(train(images, **TINY)))


def test_settings_survive_the_spec(images):
    settings = TrainingSettings.of(**TINY, timesteps="density(values=[1, 2])", seed=2**40, init_seed=1)
    spec = training_spec(images, settings, CPU)
    assert training_spec(images, settings_of(spec), CPU) == spec
    explicit = TrainingSettings.of(**{**TINY, "network": "mlp(depth=1, width=16)"}, optimizer="adam(beta1=0.9)")
    assert training_spec(images, explicit, CPU) == training_spec(images, TrainingSettings.of(**TINY), CPU)


def test_a_recipe_changes_the_settings(images, tmp_path):
    recipe = Recipe({"momentum": "mdlrc", "timesteps": "clts(width=0.1)"}, ("because",))
    model = train(images, **TINY, store=tmp_path, recipe=recipe)
    assert model.facts["spec"]["settings"]["momentum"]["name"] == "mdlrc"
    assert [r["beta1"] for r in Run.open(model.folder).records()][-1] < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "resnet"}, "unknown network 'resnet'"),
        ({"network": "mlp(widht=3)"}, "Did you mean 'width'"),
        ({"batch": 500}, "larger than the 200 images"),
        ({"optimizer": "sgd(momentum=0.0)", "momentum": "mdlrc"}, "momentum 0, which cannot decay"),
        ({"optimizer": "adamm"}, "Did you mean 'adam'"),
        ({"schedule": "lineal"}, "Did you mean 'linear'"),
        ({"predicts": "noise"}, "unknown prediction"),
        ({"device": "cuda:77"}, "cannot be used here"),
        ({"device": "gpu"}, "cannot be used here"),
    ],
)
def test_wrong_input_leaves_nothing_behind(images, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train(images, **{**TINY, **settings}, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_named(images, tmp_path):
    with pytest.raises(UserError, match="diverged"):
        train(images, **{**TINY, "optimizer": "sgd", "lr": 1e30, "clip_norm": 0.0}, store=tmp_path)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (lambda t, weight: (t * 2, weight), "drew times from"),
        (lambda t, weight: (t * torch.nan, weight), "drew times from nan"),
        (lambda t, weight: (t, weight * torch.nan), "weight that is negative or not finite"),
        (lambda t, weight: (t[:1], weight), "must be a tensor of shape"),
    ],
)
def test_times_and_weights_of_a_users_sampler_are_checked(images, tmp_path, monkeypatch, drawn, message):
    class Own(Uniform):
        def sample(self, n, step, generator):
            return drawn(*super().sample(n, step, generator))

    monkeypatch.setitem(TIMESTEPS._builders, "own", Own)
    with pytest.raises(UserError, match=message):
        train(images, **TINY, timesteps="own", store=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            lambda scale, x: scale * x.mean(1, keepdim=True),
            r"given images \(32, 3, 8, 8\) and returned \(32, 1, 8, 8\)",
        ),
        (lambda scale, x: (scale * x,), "returned a tuple"),
        (lambda scale, x: scale * x * torch.nan, "diverged: its loss is nan"),
    ],
)
def test_what_a_users_network_returns_is_checked(images, tmp_path, monkeypatch, body, message):
    class Own(ImageNetwork):
        def __init__(self, shape, classes=0):
            super().__init__(shape, classes)
            self.scale = nn.Parameter(torch.ones(()))

        def body(self, x, t, cond):
            return body(self.scale, x)

    monkeypatch.setitem(NETWORKS._builders, "own", Own)
    coloured = ImageSet("coloured", images.all().repeat(1, 3, 1, 1))
    with pytest.raises(UserError, match=message):
        train(coloured, **{**TINY, "network": "own"}, store=tmp_path)


def test_a_loss_that_was_averaged_is_refused(images):
    settings = TrainingSettings.of(**TINY)
    denoiser = build_denoiser(training_spec(images, settings, CPU))
    source = DenoisingBatches(images, settings, CPU)
    loop = TrainingLoop(denoiser, lambda *given: denoising_loss(*given).mean(), source, settings, CPU)
    with pytest.raises(UserError, match=r"one value per sample, \(32,\), and this one gave \(\)"):
        next(iter(loop))


def test_broken_weights_are_named(images, tmp_path):
    model = train(images, **TINY, store=tmp_path)
    path = model.folder / "ema.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"ema\.safetensors"):
        load_model(model.folder)


def test_sgd_and_bfloat16_train(images):
    assert weights(train(images, **{**TINY, "optimizer": "sgd(momentum=0.5)", "lr": 0.01})).isfinite().all()
    half = train(images, **TINY, precision="bfloat16")
    assert weights(half).dtype == torch.float32
    assert not torch.equal(weights(half), weights(train(images, **TINY)))


def test_bfloat16_resumes_to_the_bit_and_its_weights_are_float32(images):
    settings = TrainingSettings.of(**TINY, precision="bfloat16")

    def loop():
        denoiser = build_denoiser(training_spec(images, settings, CPU))
        return TrainingLoop(denoiser, denoising_loss, DenoisingBatches(images, settings, CPU), settings, CPU)

    whole, first, second = loop(), loop(), loop()
    losses = [float(step.loss) for step in whole]
    for step in first:
        if step.step == 40:
            break
    second.load_state_dict(first.state_dict())
    assert [float(step.loss) for step in second] == losses[40:]
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, second.module.state_dict()[name])
        assert weight.dtype == torch.float32
    assert losses[-1] < losses[0]


def test_annealing_warms_up_and_falls_linearly():
    settings = TrainingSettings(steps=100, lr_warmup=10, lr_final=0.1)
    assert annealing(settings, 0) == pytest.approx(0.1)
    assert annealing(settings, 50) == pytest.approx(0.55)
    assert annealing(settings, 100) == pytest.approx(0.1)
    assert annealing(TrainingSettings(lr_warmup=0), 0) == 1.0


def test_the_average_has_its_half_life():
    module_ = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module_.weight.fill_(0.0)
    average = WeightAverage(module_, half_life=10)
    with torch.no_grad():
        module_.weight.fill_(1.0)
    for _ in range(10):
        average.update(step=10**6)  # past the warm-up
    assert average.weights["weight"].item() == pytest.approx(0.5, rel=1e-5)
    # Young averages follow the weights closely: after k steps, half of it is at most 5 % of the run old.
    assert average.decay(20) == pytest.approx(0.5)


def test_generators_are_functions_of_their_keys():
    draws = {
        (seed, stream, step): float(torch.rand(1, generator=stream_generator(seed, stream, step)))
        for seed in (0, 1)
        for stream in ("order", "noise")
        for step in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    assert float(torch.rand(1, generator=stream_generator(1, "noise", 1))) == draws[1, "noise", 1]


def test_grey_levels_stay_bytes_on_the_device():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8))
    source = DenoisingBatches(ImageSet("bytes", pixels), TrainingSettings.of(**TINY), CPU)
    assert source.images.pixels.dtype == torch.uint8
    assert source.batch(0).data[0].dtype == torch.float32


def test_conditional_training_sees_labels_and_drops_some(images):
    settings = TrainingSettings.of(**{**TINY, "batch": 200}, conditional=True, label_dropout=0.25)
    source = DenoisingBatches(images, settings, CPU)
    x0, t, _, cond = source.batch(3).data
    truth = images.labels[source.order(3)]
    dropped = cond == images.classes
    assert torch.equal(cond[~dropped], truth[~dropped])
    assert 0.1 < dropped.float().mean() < 0.4
    free = DenoisingBatches(images, settings.replace(conditional=False), CPU).batch(3).data
    assert torch.equal(free[0], x0)
    assert torch.equal(free[1], t)


def test_a_conditional_model_follows_its_labels(images, tmp_path):
    model = train(
        images, **{**TINY, "network": "mlp(width=64, depth=1)", "steps": 200}, conditional=True, store=tmp_path
    )
    assert model.classes == 10
    again = load_model(model.folder)
    assert torch.equal(again.generate(SharedNoise(0), [3, 14]), model.generate(SharedNoise(0), [3, 14]))
    assert model.labels([0, 7, 13]).tolist() == [0, 7, 3]
    x = SharedNoise(0).initial(range(4), images.shape)
    with torch.no_grad():
        free = model.denoiser(x, 0.5).eps
        one, two = (model.denoiser(x, 0.5, torch.full((4,), label)).eps for label in (0, 1))
        guided = model.guided(2.5).denoiser(x, 0.5, torch.zeros(4, dtype=torch.long)).eps
    assert not torch.allclose(one, two)
    assert torch.allclose(guided, free + 2.5 * (one - free), atol=1e-5)
    assert torch.allclose(
        model.guided(1.0).generate(SharedNoise(0), range(3)), model.generate(SharedNoise(0), range(3)), atol=1e-4
    )
    assert model.guided(3).name == "mlp-s0-cfg3"


def test_labels_that_are_not_there_are_refused(images):
    with pytest.raises(UserError, match="no labels"):
        train(ImageSet("bare", images.pixels), **TINY, conditional=True)
    assert images.labels is not None
    odd = images.take((images.labels % 2 == 1).nonzero()[:, 0], "odd digits")
    with pytest.raises(UserError, match=r"5 of the 10 classes of 'odd digits' have no image \(first '0'\)"):
        train(odd, **TINY, conditional=True)
    assert train(ImageSet("odd", odd.pixels, odd.labels), **TINY, conditional=True).classes == 5  # as the message says
    with pytest.raises(UserError, match="conditional=True"):
        train(images, **TINY).guided(2.0)
    with pytest.raises(UserError, match="label_dropout"):
        train(images, **TINY, label_dropout=2.0)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow", "edm"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm", "flow"])
def test_every_prediction_trains_on_every_schedule(images, predicts, schedule):
    # Times away from t_min, where an eps error of a network that predicts x0 is divided by sigma.
    density = "density(values=[0, 1, 1, 1])"
    model = train(images, **TINY, predicts=predicts, schedule=schedule, timesteps=density)
    assert model.generate(SharedNoise(0), range(2)).isfinite().all()


def test_edm_measures_the_data(images):
    spec = training_spec(images, TrainingSettings.of(**TINY, predicts="edm"), CPU)
    assert spec["settings"]["predicts"]["sigma_data"] == pytest.approx(float(images.all().std()), abs=1e-3)
    assert training_spec(images, settings_of(spec), CPU) == spec
