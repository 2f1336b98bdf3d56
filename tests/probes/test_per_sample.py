"""Gradients of many samples in one pass against those of one sample at a time, and where they are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from consistency_lab.networks.registry import build_network
from consistency_lab.probes import gradients, per_sample
from consistency_lab.probes.gradients import gradient_moments
from consistency_lab.probes.per_sample import gradient_of_one, gradients_per_sample

SAMPLES = 5


class Layers(nn.Module):
    """Every kind of layer that is known, one of them twice; what ``forward`` does beside them is up to the test."""

    def __init__(self, extra=lambda self, h: h):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False)
        self.norm, self.layer_norm = nn.GroupNorm(2, 4), nn.LayerNorm([4, 4])
        self.labels, self.linear, self.unused = nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(2, 2)
        self.place = nn.Parameter(torch.randn(4, 4))
        self.extra = extra

    def forward(self, x, label):
        h = self.norm(self.conv(x)) + self.labels(label)[:, :, None, None]
        h = self.layer_norm(F.silu(self.wide(h)))
        h = self.extra(self, h)
        return self.linear(self.linear(h.flatten(2).transpose(1, 2)))


def setting(module=None):
    torch.manual_seed(0)
    module = module or Layers()
    return module, [torch.randn(SAMPLES, 2, 8, 8), torch.tensor([0, 2, 1, 1, 0])]


def loss(module, x, *rest):
    return module(x, *rest).pow(2).flatten(1).mean(1)


def one_by_one(module, function, tensors, parameters):
    return torch.stack(
        [gradient_of_one(module, function, [x[i : i + 1] for x in tensors], parameters) for i in range(len(tensors[0]))]
    )


@pytest.mark.parametrize("pixels", [0, 64], ids=["samples as groups", "windows"])
def test_they_are_those_of_one_sample_at_a_time(pixels, monkeypatch):
    monkeypatch.setattr(per_sample, "PIXELS", pixels)
    module, tensors = setting()
    parameters = list(module.parameters())
    found = gradients_per_sample(module, loss, tensors, parameters)
    torch.testing.assert_close(torch.cat(found, 1), one_by_one(module, loss, tensors, parameters), rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in parameters)


@pytest.mark.parametrize("name", ["unet(width=4)", "dit(width=16, depth=1, heads=2)", "mlp(width=16)"])
def test_networks_are_differentiated_in_one_pass(name):
    network = build_network(name, (1, 8, 8), classes=3, seed=0)
    for i, p in enumerate(network.parameters()):
        p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    x, t = (
        torch.randn(2, SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(0))[0],
        torch.linspace(0.1, 0.9, SAMPLES),
    )
    tensors, parameters = [x, t, torch.tensor([0, 1, 2, 2, 0])], list(network.parameters())
    found = gradients_per_sample(network, loss, tensors, parameters)
    expected = one_by_one(network, loss, tensors, parameters)
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


REFUSED = {
    "a parameter that is added": lambda self, h: h + self.place,
    "a weight that is made of others": lambda self, h: F.linear(h, torch.cat([self.place, self.place]))[..., :4],
    "a checkpointed layer": lambda self, h: checkpoint(self.wide, h, use_reentrant=False),
    "rows that are not samples": lambda self, h: F.linear(h.flatten(0, 1), self.linear.weight).unflatten(0, (-1, 4)),
    "as many rows as samples": lambda self, h: (
        F.linear(F.pad(h.flatten(2), (0, 0, 0, 1)).transpose(0, 1).flip(2)[..., :4], self.linear.weight)
        .transpose(0, 1)[:, :4]
        .unflatten(2, (2, 2))
        .repeat(1, 1, 2, 2)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_and_has_the_same_moments(name):
    module, tensors = setting(Layers(REFUSED[name]))
    parameters = list(module.parameters())
    assert gradients_per_sample(module, loss, tensors, parameters) is None
    moments = gradient_moments(module, loss, tensors, SAMPLES)
    rows = one_by_one(module, loss, tensors, parameters)
    torch.testing.assert_close(moments.by_weight, rows.pow(2).mean(0))


def test_a_loss_of_no_parameter_and_one_that_a_script_hides():
    module, tensors = setting()
    assert (
        gradients_per_sample(module, lambda m, x, label: x.flatten(1).sum(1), tensors, list(module.parameters()))
        is None
    )
    linear = torch.jit.trace(nn.Linear(8, 3), torch.zeros(1, 8))
    parameters = list(linear.parameters())
    assert gradients_per_sample(linear, lambda m, x: m(x).pow(2).flatten(1).sum(1), tensors[:1], parameters) is None


def test_moments_do_not_depend_on_how_many_are_taken_together(monkeypatch):
    module, tensors = setting()
    size = sum(p.numel() for p in module.parameters())
    found = []
    for together in (1, 2 * size, 2**25):
        monkeypatch.setattr(gradients, "TOGETHER", together)
        found.append(gradient_moments(module, loss, tensors, 3))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-4, atol=1e-8)
