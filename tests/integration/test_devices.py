"""What runs on a GPU, on a pretended one: nothing mixes devices, and the host waits no more often than is said here."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretended_device import DEVICE, Elsewhere, pretended_device

import consistency_lab as cl
from consistency_lab.diffusion.sampling import SAMPLERS
from consistency_lab.interop.diffusers import import_diffusers
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.metrics.copy_detection import CopyDistance
from consistency_lab.metrics.pixels import MeanSquaredError
from consistency_lab.paper.race import running
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.race import race
from consistency_lab.paper.race.running import RaceRun, Watch, train_watched
from consistency_lab.paper.rows import Rows
from consistency_lab.probes import gradients
from consistency_lab.similarity.representations import capture
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.stopping import Stopped
from consistency_lab.training.watching import LOG_EVERY

SMALL = "mlp(width=16, depth=1)"
NETWORKS = {
    "mlp": SMALL,
    "unet": "unet(width=32, multipliers=[1], blocks=1, groups=8)",
    "dit": "dit(width=32, depth=1)",
    "uvit-s": "uvit-s(width=32, depth=1)",
}
FEW = "ddim(steps=3)"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits")


@pytest.fixture
def waits():
    with pretended_device() as found:
        yield found


def trained(images, device=DEVICE, **told):
    return cl.train(images, device=device, **{"network": SMALL, "steps": 2, "batch": 8, **told})


@pytest.fixture(scope="module")
def on_cpu(images):
    """Two models; `there` makes copies of them on the pretended device."""
    return [trained(images, "cpu", seed=seed) for seed in (0, 1)]


def same(found, expected, name):
    """Equal to the rounding of float32."""
    torch.testing.assert_close(
        torch.tensor(found[name].values), torch.tensor(expected[name].values), rtol=1e-4, atol=1e-5, equal_nan=True
    )


def there(models):
    return [replace(model, denoiser=copy.deepcopy(model.denoiser)).to(DEVICE) for model in models]


# The harness itself -----------------------------------------------------------------------------------------------------------------


def test_the_device_refuses_what_a_gpu_refuses(waits):
    x, here = torch.ones(3, device=DEVICE), torch.ones(3)
    assert isinstance(x, Elsewhere)
    assert x.device == DEVICE
    for mixed in (lambda: x + here, lambda: torch.where(here > 0, x, 0), lambda: here[x.long()], lambda: x @ here):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="generator of the device"):
        torch.randn(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="generator of cpu"):
        torch.randn(3, device="cpu", generator=torch.Generator(DEVICE))
    assert not waits
    assert (x + torch.tensor(1.0)).cpu().tolist() == [2, 2, 2]  # a number on the CPU may be met
    assert torch.equal(torch.tensor([1, 2], device=DEVICE).cpu(), torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("ask", "waiting"),
    [
        (lambda x: float(x.sum()), 1),
        (lambda x: bool(x.sum() > 0), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: torch.ones(3).to(DEVICE), 1),
        (lambda x: torch.zeros(3).copy_(x), 1),
        (lambda x: torch.ones(3).to(DEVICE, non_blocking=True), 0),
        (lambda x: (x * 2).sum().clamp(0, 1), 0),
        (lambda x: x[torch.tensor([0, 1], device=DEVICE).mul(0)], 1),  # the indices are copied
        (lambda x: x[1:].view(2, 1).add_(1), 0),
    ],
)
def test_waits_are_counted(waits, ask, waiting):
    x = torch.ones(3, device=DEVICE)
    assert sum(waits.during(lambda: ask(x)).values()) == waiting


def test_what_asked_is_named(waits, images):
    found = waits.during(lambda: images.to(DEVICE).batch(torch.arange(3).to(DEVICE)))
    assert any(line.startswith("data/imageset.py:") for _, line in found)


def test_numbers_and_gradients_are_those_of_the_cpu(waits):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))
    twin = copy.deepcopy(network).to(DEVICE)
    x = torch.arange(6.0).reshape(2, 3)
    network(x).sum().backward()
    twin(x.to(DEVICE)).sum().backward()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert theirs.grad.device == DEVICE
        assert torch.equal(ours.grad, theirs.grad.cpu())


# The package on it ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_training_of_each_network(waits, images, network):
    model = trained(images, network=network, conditional=True, flip=True)
    assert model.device == DEVICE
    assert all(isinstance(p.detach(), Elsewhere) for p in model.denoiser.parameters())


def test_training_gives_the_weights_of_the_cpu_up_to_the_noise(waits, images, on_cpu):
    """Noise is drawn on the device; the pretended one draws what the CPU draws, so all is the same but the optimizer's kernel."""
    ours, theirs = trained(images, seed=0).denoiser.state_dict(), on_cpu[0].denoiser.state_dict()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), weight)


def more_waits(waits, work, few, many):
    """By how much the waits grow from a piece of work of so many steps to a longer one, by kind and line."""
    short, long = (waits.during(lambda steps=steps: work(steps)) for steps in (few, many))
    return {key: count - short[key] for key, count in long.items() if count > short[key]}


# What learns from the losses of a step before the next one is drawn must read them.
LEARNING = {"timesteps": "loss_root"}
TRAINED = [
    *({"network": network, "conditional": True, "flip": True} for network in NETWORKS.values()),
    *({"timesteps": name} for name in ("stratified", "clts", "speed")),
    *({"weighting": name} for name in ("min-snr", "p2", "edm", "speed")),
    {"optimizer": "sgd(momentum=0.5)", "precision": "bfloat16"},
]


@pytest.mark.parametrize("told", TRAINED, ids=lambda told: "-".join(map(str, told.values())))
def test_a_training_step_waits_for_nothing(waits, images, told):
    assert not more_waits(waits, lambda steps: trained(images, steps=steps, **told), 2, 4)


@pytest.mark.parametrize("train", [cl.train_gan, cl.train_vae])
def test_a_step_of_a_gan_and_a_vae_waits_for_nothing(waits, images, train):
    assert not more_waits(waits, lambda steps: train(images, steps=steps, batch=8, device=DEVICE), 2, 4)


@pytest.mark.parametrize(("told", "most"), [({}, 1), (LEARNING, 1 + LOG_EVERY)])
def test_how_often_training_waits_between_two_records(waits, images, told, most):
    """For its mean losses, and for those of each step where a sampler learns from them."""
    more = more_waits(waits, lambda steps: trained(images, steps=steps, **told), LOG_EVERY, 2 * LOG_EVERY)
    assert sum(more.values()) == most


def test_a_validation_waits_once(waits, images):
    held_out, told = images.take(range(300), "held out"), {"steps": LOG_EVERY, "validate_every": LOG_EVERY}
    found = waits.during(lambda: trained(images, validation=held_out, **told))
    assert (
        sum(count for (_, line), count in found.items() if line.startswith("training/watching.py")) == 2
    )  # one in making it


@pytest.fixture
def stopped_at(monkeypatch):
    """Training that is stopped before the step after that one."""
    ordinary = TrainingLoop._advance

    def stop(at, images, **told):
        def advance(loop):
            if loop.step == at:
                raise Stopped("stopped")
            return ordinary(loop)

        with monkeypatch.context() as patched:
            patched.setattr(TrainingLoop, "_advance", advance)
            with pytest.raises(Stopped):
                trained(images, **told)

    return stop


# torch warns of every copy to what says that it is on "meta"; here they are made.
MADE = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")


@MADE
def test_a_stopped_run_goes_on_to_the_same_bits(waits, images, stopped_at, tmp_path):
    told = {"steps": 4, "snapshots": 0, "timesteps": "loss_root"}
    expected = trained(images, **told).denoiser.state_dict()
    stopped_at(2, images, store=tmp_path, **told)
    found = trained(images, store=tmp_path, **told)
    assert found.device == DEVICE
    assert all(torch.equal(found.denoiser.state_dict()[name].cpu(), each.cpu()) for name, each in expected.items())


@MADE
def test_a_step_after_a_resume_waits_for_nothing(waits, images, stopped_at, tmp_path):
    def gone_on(steps):
        told = {"steps": steps, "snapshots": 0, "store": tmp_path / str(steps)}
        stopped_at(1, images, **told)
        return waits.during(lambda: trained(images, **told))

    assert gone_on(2) == gone_on(4)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_an_export_to_diffusers_gives_the_weights_back(waits, images, tmp_path, network):
    model = trained(images, network=network)
    cl.export_diffusers(model, tmp_path / "there")
    back = import_diffusers(tmp_path / "there", device=DEVICE)
    assert back.device == DEVICE
    for name, weight in model.denoiser.state_dict().items():
        assert torch.equal(back.denoiser.state_dict()[name].cpu(), weight.cpu())


@pytest.fixture(scope="module")
def watch(images):
    classifier = train_classifier(images.all(), images.labels, "digits", steps=2, width=4, length=8)
    training, held_out = images.split(200, 60, seed=0)
    return Watch(training, held_out, classifier, batch=16, every=3, count=8, sampler=cl.Sampler("dpm++2m", 2))


BASE = cl.TrainingSettings(network=SMALL, steps=4, batch=8, lr_warmup=0, snapshots=0)


def raced(watch, path):
    entries = Contestant("uniform", BASE, "control"), Contestant("clts", BASE.replace(timesteps="clts"), "curriculum")
    return race(entries, watch, Rows(path / f"{watch.device}.jsonl"), seeds=[0], workers=1, followed=1)


@pytest.fixture(scope="module")
def raced_on_cpu(watch, tmp_path_factory):
    return raced(watch, tmp_path_factory.mktemp("race"))


def test_a_race_gives_what_it_gives_on_the_cpu(waits, watch, raced_on_cpu, tmp_path):
    found = raced(watch.on(DEVICE), tmp_path)
    for name in ("loss", "evaluation_loss", "frechet", "pilot_loss", "target_loss", "crossing"):
        same(found, raced_on_cpu, name)


def test_a_run_of_a_race_waits_once_a_step_and_a_handful_of_times_a_record(waits, watch, monkeypatch):
    """For the seconds of each step, and for the loss on the frozen batch."""
    monkeypatch.setattr(running, "evaluation_steps", lambda steps: [steps])

    def work(steps):
        train_watched(watch.on(DEVICE), RaceRun("x", BASE.replace(steps=steps)))

    more = more_waits(waits, work, 6, 9)
    assert sum(more.values()) <= 3 + 4, more


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_a_step_of_a_sampler_waits_for_nothing(waits, on_cpu, sampler):
    """And images are those of the CPU."""
    noise, (model,) = cl.SharedNoise(0), there(on_cpu[:1])
    made = model.generate(noise, range(3), f"{sampler}(steps=3)")
    assert torch.equal(made, on_cpu[0].generate(noise, range(3), f"{sampler}(steps=3)"))
    assert not more_waits(waits, lambda n: model.generate(noise, range(3), f"{sampler}(steps={n})"), 3, 7)
    assert sum(waits.during(lambda: model.generate(noise, range(3), f"{sampler}(steps=3)")).values()) == 1  # the images


def test_a_guided_step_waits_for_nothing(waits, images):
    model = trained(images, conditional=True).guided(2.0)
    assert not more_waits(waits, lambda n: model.generate(cl.SharedNoise(0), range(3), f"ddim(steps={n})"), 3, 7)


def test_guidance(waits, images):
    model = trained(images, conditional=True).guided(2.0)
    assert model.generate(cl.SharedNoise(0), range(3), FEW).device.type == "cpu"


@pytest.fixture(scope="module")
def compared(images, on_cpu):
    return cl.compare(on_cpu, cl.SharedNoise(0), count=8, images=images, sampler=FEW)


@pytest.mark.parametrize("place", ["cpu", DEVICE])
def test_comparison(waits, images, on_cpu, compared, place):
    """Both models on the device, and one of them."""
    models = there(on_cpu) if place == "cpu" else [on_cpu[0], *there(on_cpu[1:])]
    found = cl.compare(models, cl.SharedNoise(0), count=8, images=images.to(place), sampler=FEW)
    same(found, compared, "score")


class Seen(MeanSquaredError):
    """The mean squared error, and where it was taken."""

    def __init__(self):
        self.devices = set()

    def embed(self, images):
        self.devices.add(images.device)
        return super().embed(images)


@pytest.mark.parametrize(("moved", "place"), [((0, 1), DEVICE), ((0,), DEVICE), ((1,), CPU)])
def test_models_are_compared_where_the_first_of_them_is(waits, images, on_cpu, moved, place):
    metric, models = Seen(), [there([model])[0] if k in moved else model for k, model in enumerate(on_cpu)]
    told = {"count": 6, "images": images, "sampler": FEW, "levels": 2, "ceiling": False, "references": ["mean"]}
    found = cl.compare(models, cl.SharedNoise(0), metrics=[metric], **told)
    assert metric.devices == {place}
    expected = cl.compare(on_cpu, cl.SharedNoise(0), metrics=["mse"], **told)
    for name in ("score", "nearest_distance", "reference_score"):
        same(found, expected, name)


METRICS = ("mse", "psnr", "cosine", "ssim(sigma=0.8)", "band", "blurred")


def test_metrics_give_what_they_give_on_the_cpu(waits, on_cpu):
    blurred = CopyDistance(lambda x: torch.nn.functional.avg_pool2d(x, 2).flatten(1), "blurred")
    metrics = [*METRICS[:-1], blurred]
    told = {"count": 8, "metrics": metrics, "sampler": FEW, "block": 4, "levels": 2}
    expected = cl.compare(on_cpu, cl.SharedNoise(0), **told)
    found = cl.compare(there(on_cpu), cl.SharedNoise(0), **told)
    for name in ("distance", "null", "score_low", "ceiling", "spread"):
        same(found, expected, name)


def test_a_comparison_of_more_samples_waits_no_more_often(waits, on_cpu):
    """What is measured comes home at the end. A metric at a level waits for the images' range, whether some are close, and for which."""

    def work(count, levels=3):
        cl.compare(models, cl.SharedNoise(0), count=count, metrics=["mse"], sampler=FEW, levels=levels, ceiling=False)

    models = there(on_cpu)
    assert not more_waits(waits, work, 16, 32)
    assert sum(more_waits(waits, lambda levels: work(8, levels), 2, 3).values()) <= 3


def test_snapshots_are_compared_on_the_device(waits, images, tmp_path):
    model = cl.train(images, store=tmp_path, device="cpu", network=SMALL, steps=50, snapshots=2, batch=8)
    expected = cl.compare_snapshots([model], images=images, count=6, sampler=FEW)
    found = cl.compare_snapshots(
        [replace(model, denoiser=copy.deepcopy(model.denoiser)).to(DEVICE)], images=images, count=6, sampler=FEW
    )
    for name in ("to_final", "reference_score"):
        same(found, expected, name)


def halved(x):
    """Features of images."""
    return torch.nn.functional.avg_pool2d(x, 4).flatten(1)


def test_quality_is_measured_on_the_device_and_waits_a_handful_of_times_a_row(waits, images, on_cpu):
    classifier = train_classifier(images.all(), images.labels, "digits", steps=2, width=4, length=8)
    told = {"training": images.take(range(60), "some"), "count": 8, "sampler": FEW}
    images = images.take(range(60, 120), "others")
    expected = cl.measure_quality(on_cpu, images, classifier, **told)
    models, found = there(on_cpu), []
    asked = waits.during(lambda: found.append(cl.measure_quality(models, images, classifier, **told)))
    for name in ("value", "value_low", "covered"):
        same(found[0], expected, name)
    assert classifier.device == CPU  # the user's own was left where it was
    rows = expected.sizes["row"]
    of_measures = sum(count for (_, line), count in asked.items() if line.startswith("metrics/quality.py"))
    assert of_measures <= 2 * rows + 2
    assert sum(asked.values()) <= 10 * rows


def test_a_step_of_a_classifier_waits_for_nothing(waits, images):
    def work(steps):
        train_classifier(images.all(), images.labels, "digits", steps=steps, batch=16, width=4, length=4, device=DEVICE)

    assert not more_waits(waits, work, 1, 3)


def test_copies_are_found_on_the_device(waits, images, on_cpu):
    few = images.take(range(60), "few")
    expected = cl.measure_reproducibility(on_cpu, halved, few, count=20, sampler=FEW)
    found = cl.measure_reproducibility(there(on_cpu), halved, few, count=20, sampler=FEW)
    for name in ("rp", "null_rp", "similarity", "gl", "training_gl", "nearest_similarity"):
        same(found, expected, name)


def test_moments_of_gradients_come_home_once(waits, monkeypatch):
    network, x = torch.nn.Linear(3, 2), torch.arange(30.0).reshape(10, 3)
    loss = lambda module, x: module(x).square().mean(1)  # noqa: E731
    monkeypatch.setattr(gradients, "TOGETHER", 8)  # one sample at a time
    expected = gradients.gradient_moments(network, loss, [x], 4)
    twin, found = copy.deepcopy(network).to(DEVICE), []
    asked = waits.during(lambda: found.append(gradients.gradient_moments(twin, loss, [x.to(DEVICE)], 4)))
    np.testing.assert_allclose(found[0].estimate, expected.estimate, rtol=1e-6)
    np.testing.assert_allclose(found[0].without, expected.without, rtol=1e-6)
    assert sum(count for (_, line), count in asked.items() if line.startswith("probes/gradients.py")) == 2


@pytest.mark.parametrize("place", ["cpu", DEVICE])
def test_frozen_states_and_layers(waits, images, on_cpu, place):
    expected = cl.compare_frozen(on_cpu, images, count=8, levels=3)
    for models in (on_cpu, there(on_cpu), [on_cpu[0], *there(on_cpu[1:])]):
        found = cl.compare_frozen(models, images.to(place), count=8, levels=3)
        same(found, expected, "distance")
    layer = capture(*there(on_cpu[:1]), ["network.linear_in"], 0.5, images.to(place), count=4)
    here = capture(on_cpu[0], ["network.linear_in"], 0.5, images, count=4)
    assert torch.equal(layer["network.linear_in"], here["network.linear_in"])


@pytest.mark.parametrize("place", ["cpu", DEVICE])
def test_difficulty(waits, images, on_cpu, place):
    expected = cl.probe_difficulty(on_cpu[0], images, count=4, bins=2)
    found = cl.probe_difficulty(*there(on_cpu[:1]), images.to(place), count=4, bins=2)
    for name in ("error", "reference_error", "profile"):
        same(found, expected, name)


def test_a_line_towards_a_model_on_another_device(waits, images, on_cpu):
    told = {"count": 2, "bins": 2, "points": 5}
    first, second = on_cpu
    expected = cl.probe_landscape(first, images, towards=second, **told)
    for one, other in ((first, *there([second])), (*there([first]), second)):
        found = cl.probe_landscape(one, images.to(DEVICE), towards=other, **told)
        same(found, expected, "loss")
        assert [model.device for model in (one, other)] != [one.device] * 2  # neither was moved


def test_connectivity_of_models_on_two_devices(waits, images, on_cpu):
    (first,) = there(on_cpu[:1])
    told = {"count": 2, "bins": 2, "points": 3, "steps": 1, "samples": 2, "sampler": FEW}
    found = cl.probe_connectivity(first, on_cpu[1], images.to(DEVICE), images, **told)
    expected = cl.probe_connectivity(*on_cpu, images, images, **told)
    same(found, expected, "loss")
    assert on_cpu[1].device.type == "cpu"
