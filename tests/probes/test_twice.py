"""Second derivatives of `probes.twice` against torch's own, and what it leaves to torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from consistency_lab.probes.twice import twice_differentiable


def second(function, tensors, seed=0):
    """Value, gradients, and gradients of their product with random tensors, of ``function(*tensors)``."""
    generator = torch.Generator().manual_seed(seed)
    value = function(*tensors)
    slope = torch.randn(value.shape, generator=generator, dtype=value.dtype).requires_grad_()
    gradients = torch.autograd.grad(value, tensors, slope, create_graph=True)
    vectors = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients]
    whole = torch.autograd.grad(gradients, [slope, *tensors], vectors, retain_graph=True, materialize_grads=True)
    found = [value, *gradients, *whole]
    for gradient, vector in zip(gradients, vectors, strict=True):  # each alone: the others' tangents are then missing
        if gradient.requires_grad:
            found += torch.autograd.grad(gradient, [slope, *tensors], vector, retain_graph=True, materialize_grads=True)
    return found


def tensors(*shapes, seed=0, last=False):
    generator = torch.Generator().manual_seed(seed)
    made = [1.5 * torch.randn(shape, generator=generator, dtype=torch.float64) + 0.3 for shape in shapes]
    layout = torch.channels_last if last else torch.contiguous_format
    return [
        x.contiguous(memory_format=layout if x.dim() == 4 else torch.contiguous_format).requires_grad_() for x in made
    ]


CASES = {
    "convolution": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(2, 4, 6, 6), (6, 4, 3, 3), (6,)]),
    "strided": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), [(2, 4, 6, 6), (6, 4, 3, 3), (6,)]),
    "grouped and dilated": (lambda x, w: F.conv2d(x, w, None, 1, 2, 2, 2), [(2, 4, 6, 6), (6, 2, 3, 3)]),
    "padding by name": (lambda x, w: F.conv2d(x, w, padding="same"), [(2, 4, 6, 6), (6, 4, 3, 3)]),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 4, 5, 5), (4,), (4,)]),
    "group norm of tokens": (lambda x, w, b: F.group_norm(x, 2, w, b, 1e-2), [(3, 6, 5), (6,), (6,)]),
    "group norm of vectors": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 6), (6,), (6,)]),
    "group norm without weights": (lambda x: F.group_norm(x, 2), [(3, 4, 5, 5)]),
    "silu": (F.silu, [(3, 4, 5)]),
    "cat": (lambda a, b: torch.cat([a, b], 1).pow(3), [(2, 3, 4, 4), (2, 5, 4, 4)]),
    "together": (
        lambda x, w, s, b: F.silu(F.group_norm(torch.cat([x, F.conv2d(x, w, padding=1)], 1), 2, s, b)),
        [(2, 4, 6, 6), (4, 4, 3, 3), (8,), (8,)],
    ),
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", CASES)
def test_derivatives_equal_torchs(name, last):
    function, shapes = CASES[name]
    given = tensors(*shapes, last=last)
    theirs = second(function, given)

    def replaced(*given):
        with twice_differentiable():
            return function(*given)

    ours = second(replaced, given)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.detach().abs().max()))


def test_a_checkpointed_network_has_the_same_derivatives():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 2, 1)).double()
    (x,) = tensors((2, 2, 6, 6))

    def function(checkpointed, *weights):
        def run(x):
            return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

        return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False) if checkpointed else run(x)

    names, weights = zip(*net.named_parameters(), strict=True)
    theirs = second(lambda *w: function(False, *w), list(weights))

    def replaced(*given):
        with twice_differentiable():
            return function(True, *given)

    ours = second(replaced, list(weights))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)
