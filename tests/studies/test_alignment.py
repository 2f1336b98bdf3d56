from itertools import permutations

import numpy as np
import pytest
import torch

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.studies.alignment import aligned, match_weights, permuted, unit_axes

SHAPE = (1, 4, 4)


def mlp(seed, options="width=12, depth=2, vector=8", classes=0):
    network = build_network(f"mlp({options})", SHAPE, classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network


def shuffles(network, seed=0):
    """Random permutations of every kind of unit."""
    rng, sizes = np.random.default_rng(seed), {}
    for name, p in network.named_parameters():
        units = unit_axes(network)[name]
        shape = (2, -1, *p.shape[1:]) if len(units) > p.dim() else p.shape
        for unit, size in zip(units, p.reshape(shape).shape, strict=True):
            if unit:
                sizes[unit] = size
    return {unit: rng.permutation(size) for unit, size in sizes.items()}


def inputs(classes=0):
    generator = torch.Generator().manual_seed(5)
    x, t = torch.randn(9, *SHAPE, generator=generator), torch.rand(9, generator=generator)
    return x, t, torch.arange(9) % classes if classes else None


@pytest.mark.parametrize("classes", [0, 3])
def test_the_order_of_hidden_units_means_nothing(classes):
    network = mlp(0, classes=classes)
    order = shuffles(network)
    assert set(order) == {"time", "vector", "stream", "block 0", "block 1"}
    twin, data = permuted(network, order), inputs(classes)
    moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True)]
    assert sum(moved) == len(moved) - 1  # all but the bias of the pixels
    assert torch.allclose(network(*data), twin(*data), atol=1e-5)
    # Each kind is a symmetry by itself, and moving units on one side only is none.
    for unit in order:
        one = {k: order[k] if k == unit else np.arange(len(v)) for k, v in order.items()}
        assert torch.allclose(network(*data), permuted(network, one)(*data), atol=1e-5)
    with torch.no_grad():
        twin.norm.bias.copy_(network.norm.bias)
    assert not torch.allclose(network(*data), twin(*data), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_permuted_copy_is_put_back_to_the_bit(seed):
    network = mlp(seed)
    twin = permuted(network, shuffles(network, seed))
    back = permuted(twin, match_weights(network, twin))
    for a, b in zip(network.parameters(), back.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(network(*inputs()), back(*inputs()))


def test_no_reordering_of_one_kind_of_unit_is_better():
    target, other = (mlp(seed, "width=4, depth=1, vector=4") for seed in (0, 1))
    found = match_weights(target, other)

    def likeness(order):
        pairs = zip(target.parameters(), permuted(other, order).parameters(), strict=True)
        return sum(float((a.detach().double() * b.detach().double()).sum()) for a, b in pairs)

    best = likeness(found)
    assert best > likeness({unit: np.arange(len(order)) for unit, order in found.items()})
    for unit in found:
        assert all(likeness({**found, unit: np.array(other)}) <= best + 1e-9 for other in permutations(range(4)))


def model(network, name="m"):
    return DiffusionModel(name, NetworkDenoiser(network, SCHEDULES.build("linear"), SHAPE).eval())


def test_an_aligned_model_is_the_same_model_and_the_original_is_left():
    a, b = model(mlp(0), "a"), model(mlp(1), "b")
    before = {k: v.clone() for k, v in b.denoiser.state_dict().items()}
    twin, (x, t, _) = aligned(b, a), inputs()
    assert all(torch.equal(v, before[k]) for k, v in b.denoiser.state_dict().items())
    assert torch.allclose(b.denoiser(x, 0.5 + t / 4).x0, twin.denoiser(x, 0.5 + t / 4).x0, atol=1e-4)
    apart = [
        sum((p - q).pow(2).sum() for p, q in zip(a.denoiser.parameters(), m.denoiser.parameters(), strict=True))
        for m in (b, twin)
    ]
    assert apart[1] < apart[0]
    assert twin.name == "b aligned"


def test_other_networks_are_refused_with_the_reason():
    unet = model(build_network("unet(width=8, groups=4)", (1, 8, 8)))
    with pytest.raises(UserError, match="defined for the MLP, not for UNet: groups of channels"):
        aligned(unet, unet)
    with pytest.raises(UserError, match="one architecture and size"):
        match_weights(mlp(0), mlp(0, "width=16, depth=2, vector=8"))
    with pytest.raises(UserError, match="one architecture and size"):
        match_weights(mlp(0), mlp(0, "width=12, depth=1, vector=8"))
    still = DiffusionModel("still", ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("linear")))
    with pytest.raises(UserError, match="'still' has none"):
        aligned(still, model(mlp(0)))
