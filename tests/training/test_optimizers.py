"""Muon for matrices and kernels, Adam for the rest."""

import copy
import pickle

import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.training.lockstep import placed
from consistency_lab.training.optimizers import OPTIMIZERS, Muon, as_matrix
from consistency_lab.training.settings import TrainingSettings

SETTINGS = TrainingSettings.of(network="mlp(width=16, depth=1)", optimizer="muon", steps=6, batch=16, snapshots=0)


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


def weights(*shapes, seed=0):
    made = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=made)) for shape in shapes]


def with_gradients(parameters, seed=1):
    made = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=made).contiguous()


def check_steps_are_alike(*pairs):
    """Each pair, in this order, is given the same gradients and the same new rate, and ends at the same bits."""
    for parameters, optimizer in pairs:
        with_gradients(parameters, 5)
        for group in optimizer.param_groups:
            group["lr"] = 0.5
        optimizer.step()
    (first, _), (second, _) = pairs
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_kernel_is_stepped_as_the_matrix_of_its_outputs():
    (kernel,), (flat,) = weights((6, 4, 3, 3)), weights((6, 36))
    with torch.no_grad():
        flat.copy_(kernel.flatten(1))
    mine = OPTIMIZERS.build("muon(momentum=0.9)", [kernel], 0.01)
    theirs = torch.optim.Muon([flat], 0.01, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        with_gradients([kernel], seed)
        flat.grad = kernel.grad.flatten(1).clone()
        mine.step()
        theirs.step()
    torch.testing.assert_close(kernel.flatten(1), flat, rtol=0, atol=2e-4)  # torch orthogonalises in bfloat16


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 3, 3, 3)])
def test_a_step_is_the_polynomial_of_the_singular_values(shape):
    (weight,) = weights(shape)
    before = weight.detach().clone()
    with_gradients([weight])
    left, values, right = torch.linalg.svd(weight.grad.flatten(1).double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    Muon([weight], 0.1).step()
    step = 0.1 * 0.2 * max(left.shape[0], right.shape[1]) ** 0.5 * (left * values) @ right
    torch.testing.assert_close((before - weight.detach()).flatten(1).double(), step, rtol=0, atol=1e-6)


def test_the_layout_of_a_kernel_makes_no_difference():
    (plain,), (last,) = weights((6, 4, 3, 3)), weights((6, 4, 3, 3))
    last.data = last.data.to(memory_format=torch.channels_last)
    for seed in range(3):
        for kernel in (plain, last):
            with_gradients([kernel], seed)
    optimizers = [Muon([kernel], 0.01) for kernel in (plain, last)]
    for seed in range(3):
        for kernel, optimizer in zip((plain, last), optimizers, strict=True):
            with_gradients([kernel], seed)
            optimizer.step()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, last, rtol=0, atol=2e-6)


def test_a_step_has_the_size_of_adams_and_singular_values_near_one():
    (matrix,) = weights((20, 30))
    before = matrix.detach().clone()
    optimizer = Muon([matrix], 1.0)
    with_gradients([matrix])
    optimizer.step()
    moved = before - matrix.detach()
    assert float(moved.pow(2).mean().sqrt()) == pytest.approx(0.2, rel=0.25)
    values = torch.linalg.svdvals(moved) / (0.2 * 30**0.5)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_vectors_are_stepped_by_adam():
    mine, theirs = weights((5, 4), (7,)), weights((5, 4), (7,))
    ours = Muon(mine, 0.01, beta1=0.8, beta2=0.95)
    adam = torch.optim.AdamW(theirs[1:], lr=0.01, betas=(0.8, 0.95), weight_decay=0.0, fused=True)
    for seed in range(3):
        with_gradients(mine, seed)
        theirs[1].grad = mine[1].grad.clone()
        ours.step()
        adam.step()
    assert torch.equal(mine[1], theirs[1])


def test_a_state_goes_on_to_the_same_bits_and_rates_are_those_of_the_groups():
    first, second = weights((5, 4), (7,)), weights((5, 4), (7,))
    ours, other = Muon(first, 0.01), Muon(second, 0.01)
    with_gradients(first)
    ours.step()
    with torch.no_grad():
        for a, b in zip(second, first, strict=True):
            a.copy_(b)
    other.load_state_dict(copy.deepcopy(ours.state_dict()))  # torch takes the tensors themselves
    check_steps_are_alike((first, ours), (second, other))
    before = [p.detach().clone() for p in first]
    for group in ours.param_groups:
        group["lr"] = 0.0
    ours.step()
    assert all(torch.equal(a, b) for a, b in zip(first, before, strict=True))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_duplicate_steps_its_own_weights_as_the_original_would(duplicate):
    first = weights((5, 4), (6, 3, 2, 2), (7,))
    ours = Muon(first, 0.01)
    with_gradients(first)
    ours.step()
    second, other = duplicate((first, ours))
    before = [p.detach().clone() for p in first]
    check_steps_are_alike((second, other), (first, ours))
    assert not any(torch.equal(a, b) for a, b in zip(first, before, strict=True))


def test_a_weight_without_a_gradient_stays_and_gradients_are_cleared():
    parameters = weights((5, 4), (3, 3), (7,))
    optimizer = Muon(parameters, 0.01)
    with_gradients(parameters)
    parameters[1].grad = None
    before = parameters[1].detach().clone()
    optimizer.step()
    assert torch.equal(parameters[1], before)
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


def test_a_weight_that_was_given_other_memory_is_trained_there():
    (matrix,) = weights((5, 4))
    optimizer = Muon([matrix], 0.1)
    matrix.data = matrix.detach().clone()
    before = matrix.detach().clone()
    with_gradients([matrix])
    optimizer.step()
    assert not torch.equal(matrix, before)


def test_what_cannot_be_seen_as_a_matrix_is_refused():
    assert as_matrix(torch.zeros(3, 2, 5, 5)).shape == (3, 50)
    with pytest.raises(UserError, match="cannot be seen as a matrix"):
        as_matrix(torch.zeros(4, 3).T)
    with pytest.raises(UserError, match=r"momentum of an optimizer lies in \[0, 1\)"):
        Muon(weights((2, 2)), 0.1, momentum=1.0)


def test_an_older_torch_is_told_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"Muon came with torch 2\.9"):
        OPTIMIZERS.build("muon", weights((2, 2)), 0.1)


def test_it_trains_resumes_and_is_refused_a_momentum_rule(images, tmp_path):
    whole = cl.train(images, settings=SETTINGS, store=tmp_path / "a", device="cpu", progress=False)
    adam = cl.train(images, settings=SETTINGS.replace(optimizer="adam"), device="cpu", progress=False)
    ends = []

    def stop(record):
        ends.append(record["step"])
        raise KeyboardInterrupt

    long = SETTINGS.replace(steps=60)
    with pytest.raises(KeyboardInterrupt):
        cl.train(images, settings=long, store=tmp_path / "b", callback=stop, device="cpu", progress=False)
    assert ends == [25]
    resumed = cl.train(images, settings=long, store=tmp_path / "b", device="cpu", progress=False)
    straight = cl.train(images, settings=long, device="cpu", progress=False)
    for name, value in straight.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[name])
    assert not torch.equal(whole.denoiser.network.linear_in.weight, adam.denoiser.network.linear_in.weight)
    with pytest.raises(UserError, match="momentum rules are defined for Adam, AdamW and SGD"):
        cl.train(images, settings=SETTINGS.replace(momentum="mdlrc"), device="cpu")


def test_in_lock_step_it_is_what_it_is_alone(images):
    settings = SETTINGS.replace(steps=4, lr_warmup=0, ema_half_life=0.001)
    alone = cl.train(images, settings=settings, device="cpu", progress=False)
    (one, _) = placed([settings, settings.replace(seed=1)])
    together = cl.train(images, settings=one, device="cpu", progress=False)
    a, b = (each.denoiser.network.linear_in.weight for each in (alone, together))
    torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    first = cl.train(images, settings=settings.replace(steps=1), device="cpu", progress=False)
    assert not torch.allclose(b, first.denoiser.network.linear_in.weight, rtol=0, atol=2e-4)


def test_nothing_of_a_step_stays_behind():
    """Its gradients are marked as to be iterated in float32 for the step alone."""
    (kernel,) = weights((4, 3, 3, 3))
    optimizer = Muon([kernel], 0.1)
    with_gradients([kernel])
    optimizer.step()
    (momentum,) = [each["momentum_buffer"] for each in optimizer.parts[0].state.values()]
    assert {type(momentum), type(kernel.data), type(kernel.grad)} == {torch.Tensor}
    assert [matrix.grad for _, matrix in optimizer._matrices] == [None]
