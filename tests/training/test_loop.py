import copy

import pytest
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.training.loop import OPTIMIZERS, Descent, EpochOrder, stream_generator
from consistency_lab.training.settings import LoopSettings


def test_an_order_is_a_function_of_seed_and_step():
    order = EpochOrder(10, 3, seed=4, name="ten")
    first = [order(step) for step in range(6)]
    assert sorted(torch.cat(first[:3]).unique().tolist()) == sorted(torch.cat(first[:3]).tolist())
    assert torch.equal(order(1), first[1])  # back to an earlier epoch
    assert not torch.equal(torch.cat(first[:3]), torch.cat(first[3:]))
    assert not torch.equal(EpochOrder(10, 3, seed=5, name="ten")(0), first[0])
    whole = torch.randperm(10, generator=stream_generator(4, "order", 1))
    assert torch.equal(torch.cat(first[3:]), whole[:9])
    with pytest.raises(UserError, match="larger than the 10 images of 'ten'"):
        EpochOrder(10, 11, seed=0, name="ten")


@pytest.mark.parametrize(("optimizer", "size"), [("sgd(momentum=0.0)", 0.02), ("adam(beta1=0.0)", 0.2)])
def test_a_descent_has_its_own_rate(optimizer, size):
    line = nn.Linear(1, 1, bias=False)
    descent = Descent(line, LoopSettings(optimizer=optimizer, lr=5.0, lr_warmup=0, clip_norm=0.1), lr=0.2)
    before = line.weight.item()
    descent.take(7 * line.weight.sum(), step=0)
    # Plain gradient descent moves by rate times clipped norm, Adam's first step by the rate.
    assert before - line.weight.item() == pytest.approx(size, rel=1e-4)
    assert descent.rates == (pytest.approx(0.2), 0.0)


def test_a_checkpoint_of_an_earlier_version_goes_on_to_the_bit():
    # It held what the last step was taken with: the compensated rate, the rule's beta, and no count per group.
    settings = LoopSettings(steps=6, momentum="mdlrc", optimizer="adamw", lr_warmup=2)

    def descend(line, descent, steps):
        for step in steps:
            descent.take((line(torch.ones(1, 1)) - step).pow(2).sum(), step)

    lines = [nn.Linear(1, 1) for _ in range(2)]
    lines[1].load_state_dict(lines[0].state_dict())
    whole, second = (Descent(line, settings) for line in lines)
    descend(lines[0], whole, range(3))
    state = copy.deepcopy(whole.state_dict())
    lines[1].load_state_dict(lines[0].state_dict())
    (group,) = state["optimizer"]["param_groups"]
    group.update(lr=whole.rates[0], betas=(whole.rates[1], 0.999), weight_decay=0.02)
    del state["momentum"]["counts"]
    second.load_state_dict(state)
    for line, descent in zip(lines, (whole, second), strict=True):
        descend(line, descent, range(3, 6))
    assert torch.equal(lines[0].weight, lines[1].weight)
    assert whole.rates == second.rates


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("adam(beta1=0.8)", lambda p: torch.optim.Adam(p, 1e-2, betas=(0.8, 0.999), foreach=False)),
        ("adamw(weight_decay=0.1)", lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1, foreach=False)),
        ("sgd(weight_decay=0.1)", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=0.1, foreach=False)),
    ],
)
def test_one_kernel_steps_as_one_parameter_after_the_other_does(text, plain):
    """Equal but for rounding, which 50 steps add up to less than 1e-5 of a weight."""
    drawn = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=drawn) for shape in ((3, 5), (7,), (4, 4, 3, 3), (1,))]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizers = OPTIMIZERS.build(text, ours, 1e-2), plain(theirs)
    for _ in range(50):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=drawn)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, start in zip(ours, theirs, starts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(a, start, atol=1e-3)


def test_complex_weights_are_stepped_too():
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = OPTIMIZERS.build("adam", [weight], 0.1)
    (weight - 1j).abs().pow(2).sum().backward()
    optimizer.step()
    assert bool((weight.real < 1).all())
    assert bool((weight.imag > 0).all())


@pytest.mark.parametrize("size", [0.5, 0.9995, 1.0, 3.0, float("nan")])
def test_gradients_are_clipped_as_torch_clips_them(size):
    line = nn.Linear(1, 2, bias=False)
    descent = Descent(line, LoopSettings(optimizer="sgd(momentum=0.0)", lr=1.0, lr_warmup=0, clip_norm=1.0))
    before = line.weight.detach().clone()
    weights = torch.tensor([[0.6], [0.8]]) * size  # a gradient of that norm
    descent.take((line.weight * weights).sum(), step=0)
    other = nn.Parameter(before.clone())
    other.grad = weights.clone()
    torch.nn.utils.clip_grad_norm_([other], 1.0)
    assert torch.equal(line.weight.grad, other.grad) or size != size
    assert bool(line.weight.isnan().all()) == (size != size)
