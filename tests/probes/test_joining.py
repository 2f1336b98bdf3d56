import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import update_bn

from consistency_lab.contrast.vae import train_vae
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import GuidedDenoiser, NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.torchscript import load_torchscript
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.joining import settling
from consistency_lab.probes.landscape import line_landscape, probe_landscape
from consistency_lab.probes.plane import probe_plane
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.studies.alignment import aligned
from consistency_lab.studies.connectivity import ALIGNED, CURVE, LINE, probe_connectivity
from consistency_lab.studies.contrast_subject import contrast_subject
from consistency_lab.training.train import train

SHAPE = (1, 8, 8)
IMAGES = load_images("digits")
FEW = {"count": 8, "bins": 3}


class Net(nn.Module):
    """A convolution, perhaps with a norm, and an activation that has an option."""

    def __init__(self, norm=None, slope=0.1):
        super().__init__()
        self.into, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.norm, self.act = norm or nn.Identity(), nn.LeakyReLU(slope)

    def forward(self, x, t):
        return self.out(self.act(self.norm(self.into(x))))


def wrapped(seed, schedule="linear", predicts="eps", **options):
    torch.manual_seed(seed)
    net = Net(**options)
    for name, buffer in net.named_buffers():  # as after training: what a norm has seen is each model's own
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape) + (0.5 if "var" in name else 0.0))
    return wrap_module(net, schedule=schedule, predicts=predicts, shape=SHAPE, name=f"m{seed}", time="unit")


def normed(seed):
    return wrapped(seed, norm=nn.BatchNorm2d(4))


def own_loss(model, **few):
    return diffusion_subject(model, IMAGES, **{**FEW, **few}).losses()


def plain(seed, schedule="linear", predicts="eps"):
    network = build_network("mlp(width=16, depth=1)", SHAPE, seed=seed)
    return DiffusionModel(f"m{seed}", NetworkDenoiser(network, SCHEDULES.build(schedule), SHAPE, predicts).eval())


def guided(seed, scale):
    model = plain(seed)
    return DiffusionModel(f"m{seed}", GuidedDenoiser(model.denoiser, scale).eval())


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (plain(0), plain(1, predicts="v"), "differ in predicts \\('eps' against 'v'\\)"),
        (plain(0), plain(1, "cosine"), "differ in schedule \\(linear.* against cosine"),
        (
            plain(0, predicts="edm(sigma_data=0.5)"),
            plain(1, predicts="edm(sigma_data=0.6)"),
            "differ in predicts .*sigma_data=0.6",
        ),
        (guided(0, 1.0), guided(1, 2.0), "differ in scale \\(1.0 against 2.0\\)"),
        (plain(0), guided(1, 2.0), "are a NetworkDenoiser and a GuidedDenoiser"),
        (wrapped(0), wrapped(1, norm=nn.GroupNorm(2, 4)), "have different parameters"),
        (wrapped(0), wrapped(1, norm=nn.Tanh()), "differ in network.module.norm \\(Identity against Tanh\\)"),
        (wrapped(0), wrapped(1, slope=0.5), "m0' has a loss of .* they differ in something that is no weight"),
        (
            wrapped(0, norm=nn.InstanceNorm2d(4, track_running_stats=True)),
            wrapped(1, norm=nn.InstanceNorm2d(4)),
            "have different buffers",
        ),
        (
            wrapped(0, norm=nn.InstanceNorm2d(4, track_running_stats=True)),
            wrapped(1, norm=nn.InstanceNorm2d(4, track_running_stats=True)),
            "differ in the buffer network.module.norm.running_mean",
        ),
        (
            wrapped(0, norm=spectral_norm(nn.Conv2d(4, 4, 1))),
            wrapped(1, norm=spectral_norm(nn.Conv2d(4, 4, 1))),
            "differ in the buffer .*_u",
        ),
    ],
)
def test_models_that_differ_in_more_than_weights_have_no_path(a, b, what):
    for ask in (
        lambda: probe_landscape(a, IMAGES, towards=b, points=5, **FEW),
        lambda: probe_landscape(b, IMAGES, towards=a, points=5, **FEW),
        lambda: probe_plane(a, IMAGES, through=[a, b], points=5, **FEW),
    ):
        with pytest.raises(UserError, match="there is a path only between") as said:
            ask()
    with pytest.raises(UserError, match=what):
        probe_landscape(a, IMAGES, towards=b, points=5, **FEW)
    assert "\n" not in str(said.value)


def test_alignment_and_connectivity_refuse_the_same():
    settings = {"network": "mlp(width=8, depth=1)", "steps": 1, "batch": 4}
    a = train(IMAGES, seed=0, **settings)
    for options, what in (({"predicts": "v"}, "differ in predicts"), ({"schedule": "cosine"}, "differ in schedule")):
        b = train(IMAGES, seed=1, **settings, **options)
        with pytest.raises(UserError, match=what):
            aligned(b, a)
        with pytest.raises(UserError, match=what):
            probe_connectivity(a, b, IMAGES, IMAGES)


def test_both_ends_of_a_line_are_the_models_themselves_to_the_bit():
    for a, b in ((plain(0), plain(1)), (normed(0), normed(1))):
        line = probe_landscape(a, IMAGES, towards=b, points=9, **FEW)
        for position, model in ((0.0, a), (1.0, b)):
            assert np.array_equal(line["loss_by_t"].sel(position=position), own_loss(model).numpy().mean(1))


def test_a_line_through_batch_norm_is_the_same_from_either_end():
    a, b = normed(0), normed(1)
    before = [copy.deepcopy(m.denoiser.state_dict()) for m in (a, b)]
    there, back = (probe_landscape(x, IMAGES, towards=y, points=13, **FEW) for x, y in ((a, b), (b, a)))
    inside = slice(0.0, 1.0)
    np.testing.assert_allclose(there["loss"].sel(position=inside), back["loss"].sel(position=inside)[::-1], rtol=1e-4)
    assert float(there["barrier"]) == pytest.approx(float(back["barrier"]), rel=1e-3, abs=1e-6)
    for model, old in zip((a, b), before, strict=True):
        assert all(torch.equal(x, old[key]) for key, x in model.denoiser.state_dict().items())
        assert not any(m.training for m in model.denoiser.modules())
        assert model.denoiser.network.module.norm.momentum == 0.1


def moved(start, end, position):
    """A copy of a model at a position on the way to another."""
    copied = copy.deepcopy(start.denoiser)
    with torch.no_grad():
        for p, q in zip(copied.parameters(), end.denoiser.parameters(), strict=True):
            p.add_(position * (q - p))
    return copied


def test_running_statistics_between_are_those_of_update_bn():
    a, b = normed(0), normed(1)
    subject = diffusion_subject(a, IMAGES, **FEW)
    line = line_landscape(subject, towards=subject.asked_of(b.denoiser, "b"), points=9)
    x0, t, eps = subject.batch.tensors
    schedule = a.denoiser.schedule
    alpha, sigma = (scale(t)[:, None, None, None].float() for scale in (schedule.alpha, schedule.sigma))
    for position in (-0.25, 0.5, 1.25):
        middle = moved(a, b, position)
        norm = middle.network.module.norm
        update_bn([middle.network.module.into(alpha * x0 + sigma * eps)], norm.train())
        norm.eval()
        expected = Subject("middle", middle, subject.loss, subject.batch, "", subject.times).losses().mean(1)
        np.testing.assert_allclose(line["loss_by_t"].sel(position=position), expected, rtol=1e-4)


def test_chunks_make_no_difference_to_running_statistics():
    a, b = normed(0), normed(1)
    whole = diffusion_subject(a, IMAGES, **FEW)
    found = []
    for chunk in (24, 6):  # 24 samples, time major
        subject = Subject("a", a.denoiser, denoising_loss, FrozenBatch(whole.batch.tensors, chunk), "", whole.times)
        settling(subject, subject.asked_of(b.denoiser, "b"))()
        norm = a.denoiser.network.module.norm
        found.append((norm.running_mean.clone(), norm.running_var.clone()))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], rtol=0.2)  # the spread between means of chunks is left out


def test_equal_running_statistics_stay_as_they_are():
    a, b = normed(0), normed(1)
    b.denoiser.network.module.norm.load_state_dict(a.denoiser.network.module.norm.state_dict())
    subject = diffusion_subject(a, IMAGES, **FEW)
    assert settling(subject, subject.asked_of(b.denoiser, "b")) is None
    line = probe_landscape(a, IMAGES, towards=b, points=9, **FEW)
    middle = Subject("middle", moved(a, b, 0.5), subject.loss, subject.batch, "", subject.times)
    np.testing.assert_allclose(line["loss_by_t"].sel(position=0.5), middle.losses().mean(1), rtol=1e-4)


def test_the_corners_of_a_plane_are_the_models_themselves_to_the_bit():
    models = [normed(seed) for seed in range(3)]
    plane = probe_plane(models[0], IMAGES, through=models[1:], points=7, **FEW)
    for corner, model in enumerate(models):
        own = float(own_loss(model).mean(0).mean())
        assert float(plane["corner_loss"][corner]) == pytest.approx(own, rel=1e-12)
    at = plane.sel(x=1.0, y=0.0)
    assert np.array_equal(at["loss_by_t"], own_loss(models[1]).numpy().mean(1))


def test_curves_between_models_with_batch_norm_end_at_both():
    facts = train(IMAGES, seed=0, network="mlp(width=8, depth=1)", steps=1, batch=16).facts
    a, b = (DiffusionModel(m.name, m.denoiser, facts) for m in (normed(0), normed(1)))
    options = {"steps": 30, "lr": 0.01, "points": 5, "count": 8, "bins": 3, "samples": 4}
    there, back = (probe_connectivity(x, y, IMAGES, IMAGES, **options) for x, y in ((a, b), (b, a)))
    for path in (LINE, CURVE):
        for end, model in ((0, a), (-1, b)):
            own = own_loss(model).mean().item()
            assert float(there["loss"].sel(path=path)[end]) == pytest.approx(own, rel=1e-12)
    assert ALIGNED not in there["path"]
    line = {"path": LINE}
    np.testing.assert_allclose(there["loss"].sel(line), back["loss"].sel(line)[::-1], rtol=1e-4)
    # On the running statistics of its own batches the curve learns; every loss is finite.
    assert np.isfinite(there["loss"]).all()
    assert there["curve_loss"][-5:].mean() < there["curve_loss"][:5].mean()


@pytest.mark.filterwarnings("ignore")
def test_two_torchscript_models_have_the_line_of_their_modules(tmp_path):
    pairs = []
    for seed in (0, 1):
        model = wrapped(seed)
        torch.jit.script(model.denoiser.network.module).save(tmp_path / f"{seed}.pt")
        options = {
            "schedule": "linear",
            "predicts": "eps",
            "shape": SHAPE,
            "time": "unit",
            "device": "cpu",
            "trust": True,
        }
        pairs.append((model, load_torchscript(tmp_path / f"{seed}.pt", **options)))
    (a, scripted_a), (b, scripted_b) = pairs
    ours = probe_landscape(a, IMAGES, towards=b, points=7, **FEW)
    theirs = probe_landscape(scripted_a, IMAGES, towards=scripted_b, points=7, **FEW)
    np.testing.assert_allclose(theirs["loss"], ours["loss"], rtol=1e-4)
    normal = [normed(seed) for seed in (0, 1)]
    for model in normal:
        model.denoiser.network.module = torch.jit.script(model.denoiser.network.module)
    with pytest.raises(UserError, match=r"differ in the buffer network\.module\.norm\.running_mean"):
        probe_landscape(normal[0], IMAGES, towards=normal[1], points=5, **FEW)


def test_vaes_of_other_losses_have_no_path():
    a, b, c = (
        train_vae(IMAGES, seed=seed, autoencoder="conv(latent=5, width=4)", steps=1, batch=4, beta=beta)
        for seed, beta in ((0, 0.1), (1, 1.0), (2, 0.1))
    )
    first, second, third = (contrast_subject(m, IMAGES, count=4) for m in (a, b, c))
    with pytest.raises(UserError, match=r"differ in beta of their loss \(0\.1 against 1\.0\)"):
        line_landscape(first, towards=second, points=5)
    line = line_landscape(first, towards=third, points=7)
    assert float(line["loss"].sel(position=1.0)) == pytest.approx(float(third.losses().mean()), rel=1e-12)


def test_a_model_in_place_of_images_is_told_so():
    a, b = plain(0), plain(1)
    for probe in (probe_landscape, probe_plane):
        with pytest.raises(UserError, match=r"'m1' is a model; .* probe_landscape\(a, images, towards=b\)"):
            probe(a, b)
