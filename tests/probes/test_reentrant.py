"""A network that checkpoints with use_reentrant=True trains rightly or is refused in a sentence, and so is what differentiates it."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.reentrant import differentiating
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.operators import GaussNewton, Hessian
from consistency_lab.probes.subject import diffusion_subject
from consistency_lab.probes.weight_space import mean_gradients
from consistency_lab.training.train import train

TINY = {"steps": 3, "batch": 16, "lr_warmup": 1}


class Checkpointed(ImageNetwork):
    """``first``: the layer on the images is checkpointed (its input asks for no gradient); without, the one in the middle."""

    def __init__(self, shape, classes=0, *, reentrant: bool = True, first: bool = False):
        super().__init__(shape, classes)
        pixels = shape[0] * shape[1] * shape[2]
        self.layers = nn.ModuleList([nn.Linear(pixels + 1, 32), nn.Linear(32, 32), nn.Linear(32, pixels)])
        self.reentrant, self.chosen = reentrant, 0 if first else 1

    def body(self, x, t, cond):
        h = torch.cat([x.flatten(1), t[:, None].to(x)], 1)
        for number, layer in enumerate(self.layers):
            h = checkpoint(layer, h, use_reentrant=self.reentrant) if number == self.chosen else layer(h)
            h = h.tanh() if number < 2 else h
        return h.view_as(x)


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(64), "some digits")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(NETWORKS._builders, "checkpointed", Checkpointed)


def ones(subject):
    return torch.ones(sum(p.numel() for p in subject.module.parameters()))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


def test_a_layer_that_would_never_be_trained_is_refused_at_the_first_step(images, tmp_path):
    with pytest.raises(UserError, match="call it with use_reentrant=False"):
        train(images, network="checkpointed(first=True)", **TINY, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_gradients_are_right_it_trains_to_the_same_bits(images):
    models = [train(images, network=f"checkpointed(reentrant={flag})", **TINY) for flag in (True, False)]
    assert torch.equal(*map(weights, models))


@pytest.mark.parametrize(
    "probe",
    [
        lambda model, images: Hessian(subject := diffusion_subject(model, images, count=4, bins=2)) @ ones(subject),
        lambda model, images: GaussNewton(subject := diffusion_subject(model, images, count=4, bins=2)) @ ones(subject),
        lambda model, images: probe_difficulty(model, images, count=4, bins=2, detail=4),
        lambda model, images: list(
            mean_gradients(model.denoiser, lambda m, x: m(x, 0.5).x0.flatten(1).mean(1), [FrozenBatch([images.all()])])
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_probes_say_what_to_change(images, probe):
    with pytest.raises(UserError, match="use_reentrant=True, through which these gradients cannot be taken"):
        probe(train(images, network="checkpointed", **TINY), images)
    probe(train(images, network="checkpointed(reentrant=False)", **TINY), images)


def test_other_errors_and_warnings_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), differentiating():
        nn.Linear(2, 2)(torch.ones(1, 3))
    with warnings.catch_warnings(record=True) as seen, differentiating():
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert len(seen) == 1
