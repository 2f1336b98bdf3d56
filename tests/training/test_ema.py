"""Weight averages of networks that a user registers: whatever their state, what is kept is a model that works."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from consistency_lab.contrast.gan import GAN_KIND, train_gan
from consistency_lab.contrast.networks import DISCRIMINATORS
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.training import run_io
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.train import load_model, load_snapshots, train

TINY = {"steps": 50, "batch": 32, "lr_warmup": 5, "snapshots": 2}


class Network(ImageNetwork):
    """Two layers on pixels and time; what is special about one is made in `special`, and used between the layers."""

    def __init__(self, shape, classes=0):
        super().__init__(shape, classes)
        pixels = shape[0] * shape[1] * shape[2]
        self.first, self.last = nn.Linear(pixels + 1, 32), nn.Linear(32, pixels)
        self.special()

    def special(self):
        pass

    def between(self, h):
        return h

    def body(self, x, t, cond):
        return self.last(self.between(self.first(torch.cat([x.flatten(1), t[:, None].to(x)], 1)).relu())).view_as(x)


class OldSpectral(Network):
    def special(self):
        self.first = nn.utils.spectral_norm(self.first)
        self.last = nn.utils.spectral_norm(self.last)


class Spectral(Network):
    def special(self):
        self.first = parametrizations.spectral_norm(self.first)
        self.last = parametrizations.spectral_norm(self.last)


class BatchNorm(Network):
    def special(self):
        self.norm = nn.BatchNorm1d(32)

    def between(self, h):
        return self.norm(h)


class Assigned(Network):
    """A running mean that is another tensor after every forward pass."""

    def special(self):
        self.register_buffer("mean", torch.zeros(32))

    def between(self, h):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


class LateBuffer(Network):
    def between(self, h):
        if not hasattr(self, "late"):
            self.register_buffer("late", h.detach().mean(0))
        return h - self.late


class LateLayer(Network):
    def between(self, h):
        if not hasattr(self, "late"):
            self.late = nn.Linear(32, 32)
        return self.late(h)


class Lazy(Network):
    def special(self):
        self.lazy = nn.LazyLinear(32)

    def between(self, h):
        return self.lazy(h)


class Replaced(Network):
    def special(self):
        self.scale = nn.Parameter(torch.ones(32))

    def between(self, h):
        self.scale = nn.Parameter(self.scale.detach() * 0.9)
        return h * self.scale


class Growing(Network):
    def special(self):
        self.register_buffer("seen", torch.zeros(1, 32))

    def between(self, h):
        self.seen = torch.cat([self.seen, h.detach()[:1]])
        return h


class Unsaved(Assigned):
    def special(self):
        self.register_buffer("mean", torch.zeros(32), persistent=False)


class Cached(Network):
    """A table made when it is first wanted, in no file: it follows from nothing but the sizes."""

    def special(self):
        self.register_buffer("table", None, persistent=False)
        self.register_buffer("ones", torch.ones(32), persistent=False)

    def between(self, h):
        self.table = torch.ones(h.shape[1]) if self.table is None else self.table
        return h * self.table * self.ones


class Extra(Network):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


class Frozen(Network):
    def special(self):
        self.requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(200), "some digits")


@pytest.fixture
def registered(monkeypatch):
    """Register a class for one test, under its name."""

    def register(kind, registry=NETWORKS):
        monkeypatch.setitem(registry._builders, kind.__name__, kind)
        return kind.__name__

    return register


def loss(model, images):
    x0, eps = images.all(), SharedNoise(5).initial(range(200), images.shape)
    with torch.no_grad():
        return float(denoising_loss(model.denoiser, x0, torch.linspace(0.1, 1, 200, dtype=torch.float64), eps).mean())


@pytest.mark.parametrize("kind", [OldSpectral, Spectral, BatchNorm, Assigned])
def test_buffers_are_those_of_the_network_and_not_averages(kind, images, registered, tmp_path):
    averaged = train(images, network=registered(kind), **TINY, store=tmp_path, lr=2e-2, ema_half_life=0.2)
    raw = load_model(averaged.folder, weights="raw")
    buffers = dict(raw.denoiser.named_buffers())
    assert any(value.is_floating_point() for value in buffers.values())
    for name, value in averaged.denoiser.named_buffers():
        assert torch.equal(value, buffers[name])
    pairs = zip(averaged.denoiser.parameters(), raw.denoiser.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)
    assert loss(averaged, images) == pytest.approx(loss(raw, images), rel=0.2)
    *_, (_, last) = load_snapshots(averaged)
    assert loss(last, images) == loss(averaged, images)
    unkept = train(images, network=kind.__name__, **TINY, lr=2e-2, ema_half_life=0.2)
    assert loss(unkept, images) == loss(averaged, images)


def test_a_buffer_that_is_assigned_anew_is_the_last_one(images, registered, tmp_path):
    model = train(images, network=registered(Assigned), **TINY, store=tmp_path)
    # Over the run it has become the mean of the hidden units; the initial zeros are what a stale one would be.
    assert model.denoiser.network.mean.max() > 0.05


@pytest.mark.parametrize("kind", [Spectral, BatchNorm, Assigned])
def test_a_stopped_run_of_such_a_network_goes_on_to_the_bit(kind, images, registered, tmp_path, monkeypatch):
    whole = train(images, network=registered(kind), **TINY, store=tmp_path / "a")
    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    original = TrainingLoop._advance

    def stop_late(loop):
        if loop.step == 40:
            raise KeyboardInterrupt
        return original(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", stop_late)
    with pytest.raises(KeyboardInterrupt):
        train(images, network=kind.__name__, **TINY, store=tmp_path / "b")
    monkeypatch.setattr(TrainingLoop, "_advance", original)
    resumed = train(images, network=kind.__name__, **TINY, store=tmp_path / "b")
    for (key, a), b in zip(whole.denoiser.state_dict().items(), resumed.denoiser.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LateBuffer, r"makes or drops 'network\.late'.*register it in __init__"),
        (LateLayer, r"makes or drops 'network\.late\.bias'"),
        (Lazy, r"'network\.lazy\.weight' of the network has no size yet"),
        (Replaced, r"another parameter in the place of 'network\.scale'"),
        (Growing, r"'network\.seen' had the shape \(1, 32\) and now has \(2, 32\)"),
        (Unsaved, r"'network\.mean', which is registered with persistent=False"),
        (Extra, r"keeps 'network\._extra_state', which is no tensor"),
        (Frozen, "no parameter that could be trained"),
    ],
)
def test_a_network_whose_file_would_not_be_the_model_is_refused_at_once(kind, message, images, registered, tmp_path):
    with pytest.raises(UserError, match=message):
        train(images, network=registered(kind), **TINY, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_in_no_file_is_nobodys_business(images, registered, tmp_path):
    model = train(images, network=registered(Cached), **TINY, store=tmp_path)
    assert loss(load_model(model.folder), images) == loss(model, images)


def test_a_discriminator_with_spectral_norm_keeps_its_vectors(images, registered, tmp_path):
    class Critic(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.layer = parametrizations.spectral_norm(nn.Linear(64, 8))
            self.out = nn.Linear(8, 1)

        def forward(self, x):
            return self.out(self.layer(x.flatten(1)).tanh())

    settings = {"discriminator": registered(Critic, DISCRIMINATORS), "steps": 30, "batch": 16, "penalty": 0.0}
    averaged = train_gan(images, **settings, store=tmp_path)
    raw = GAN_KIND.load(averaged.folder, weights="raw")
    for name, value in averaged.module.discriminator.named_buffers():
        assert torch.equal(value, raw.module.discriminator.get_buffer(name))
