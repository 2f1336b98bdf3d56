import math

import curvlinops
import hessian_eigenthings
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes import operators
from consistency_lab.probes.directions import random_axes
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.operators import GaussNewton, Hessian
from consistency_lab.probes.subject import Split, Subject, diffusion_subject
from consistency_lab.probes.weight_space import mean_gradients


def regression(chunk=1024, samples=23):
    """A small network with a squared error, in float64: 23 samples make 4 chunks of 7, 7, 7, 2."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(samples, 5).double(), torch.randn(samples, 3).double()
    split = Split(lambda m, x, y: m(x), lambda out, x, y: (out - y).pow(2).mean(1))
    loss = lambda m, x, y: (m(x) - y).pow(2).mean(1)  # noqa: E731
    return Subject("regression", module, loss, FrozenBatch([x, y], chunk), "squared error", None, split)


def dense(operator):
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


def batches(subject, chunk):
    return list(zip(*(x.split(chunk) for x in subject.batch.tensors), strict=True))


def autograd_hessian(subject):
    names = [name for name, _ in subject.module.named_parameters()]
    shapes = [p.shape for p in subject.module.parameters()]
    sizes = [p.numel() for p in subject.module.parameters()]

    def total(flat):
        pieces = {n: v.reshape(s) for n, v, s in zip(names, flat.split(sizes), shapes, strict=True)}
        x, y = subject.batch.tensors
        return (torch.func.functional_call(subject.module, pieces, (x,)) - y).pow(2).mean(1).mean()

    flat = torch.cat([p.detach().flatten() for p in subject.module.parameters()])
    return torch.autograd.functional.hessian(total, flat)


def test_the_hessian_is_that_of_autograd_whatever_the_chunks():
    expected = autograd_hessian(regression())
    for chunk in (1024, 7, 1):
        torch.testing.assert_close(dense(Hessian(regression(chunk))), expected, rtol=1e-10, atol=1e-12)


def test_a_product_is_the_finite_difference_of_gradients():
    subject, h = regression(7), 1e-5
    operator = Hessian(subject)
    vector = torch.randn(operator.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pieces = vector.split([p.numel() for p in subject.module.parameters()])
    gradients = []
    for sign in (1, -1):
        moved = regression(7).module
        with torch.no_grad():
            for p, piece in zip(moved.parameters(), pieces, strict=True):
                p.add_(sign * h * piece.reshape(p.shape))
        (gradient,) = mean_gradients(moved, subject.loss, [subject.batch])
        gradients.append(torch.cat([g.flatten() for g in gradient]))
    torch.testing.assert_close(operator @ vector, (gradients[0] - gradients[1]) / (2 * h), rtol=1e-6, atol=1e-8)


def test_products_equal_curvlinops_with_a_ragged_last_batch():
    subject = regression(7)
    parameters, data = list(subject.module.parameters()), batches(subject, 7)
    vectors = torch.randn(sum(p.numel() for p in parameters), 3, generator=torch.Generator().manual_seed(2)).double()
    for ours, theirs in ((Hessian, curvlinops.HessianLinearOperator), (GaussNewton, curvlinops.GGNLinearOperator)):
        other = theirs(subject.module, nn.MSELoss(), parameters, data)
        torch.testing.assert_close(ours(subject) @ vectors, other @ vectors, rtol=1e-9, atol=1e-12)


def test_products_equal_hessian_eigenthings():
    subject = regression(7)
    vector = torch.randn(57, generator=torch.Generator().manual_seed(3)).double()
    mean = lambda m, batch: F.mse_loss(m(batch[0]), batch[1])  # noqa: E731
    theirs = lambda chunk: hessian_eigenthings.HessianOperator(subject.module, batches(subject, chunk), mean)  # noqa: E731
    ours = Hessian(subject) @ vector
    torch.testing.assert_close(ours, theirs(23) @ vector, rtol=1e-9, atol=1e-12)
    # With a ragged last batch it is the mean over batches, not over samples: the two samples of the last weigh as much as seven.
    each = [Hessian(subject.of_images(rows)) @ vector for rows in torch.arange(23).split(7)]
    torch.testing.assert_close(torch.stack(each).mean(0), theirs(7) @ vector, rtol=1e-9, atol=1e-12)
    shares = torch.tensor([7, 7, 7, 2]).double() / 23
    torch.testing.assert_close(ours, shares @ torch.stack(each), rtol=1e-9, atol=1e-12)


def test_gauss_newton_is_the_hessian_where_the_output_is_linear_and_positive_elsewhere():
    torch.manual_seed(1)
    linear = nn.Linear(4, 2).double()
    x, y = torch.randn(9, 4).double(), torch.randn(9, 2).double()
    split = Split(lambda m, x, y: m(x), lambda out, x, y: (out - y).pow(2).mean(1))
    subject = Subject("l", linear, lambda m, x, y: (m(x) - y).pow(2).mean(1), FrozenBatch([x, y], 4), "", None, split)
    torch.testing.assert_close(dense(GaussNewton(subject)), dense(Hessian(subject)), rtol=1e-10, atol=1e-12)
    assert torch.linalg.eigvalsh(dense(GaussNewton(regression()))).min() > -1e-12
    assert torch.linalg.eigvalsh(dense(Hessian(regression()))).min() < -1e-3


def test_some_parameters_are_a_block_of_the_whole():
    subject = regression(7)
    whole, part = dense(Hessian(subject)), dense(Hessian(subject, ["2.weight", "2.bias"]))
    torch.testing.assert_close(part, whole[36:, 36:])


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature():
    module = nn.Linear(3, 1, bias=False).double()
    subject = Subject("l", module, lambda m, x: m(x).squeeze(1), FrozenBatch([torch.ones(4, 3).double()]), "")
    assert (dense(Hessian(subject)) == 0).all()


@pytest.mark.parametrize("name", ["unet(width=8)", "dit(width=16, depth=1, heads=2)"])
def test_products_with_real_networks_are_finite_differences(name):
    images = load_images("digits")
    network = build_network(name, images.shape, seed=0)
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    denoiser = NetworkDenoiser(network, SCHEDULES.build("linear"), images.shape).double().eval()
    subject = diffusion_subject(DiffusionModel("m", denoiser), images, count=3, bins=2)
    subject = Subject("m", denoiser, subject.loss, FrozenBatch([x.double() for x in subject.batch.tensors], 4), "")
    operator = Hessian(subject)
    direction = random_axes(denoiser, 0, one_dimensional=True).axes[0]
    vector = torch.cat([d.flatten() for d in direction])
    flat = lambda g: torch.cat([x.flatten() for x in g])  # noqa: E731
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(denoiser.parameters(), direction, strict=True):
                p.add_(sign * 1e-5 * d)
        found.append(flat(next(mean_gradients(denoiser, subject.loss, [subject.batch]))))
        with torch.no_grad():
            for p, d in zip(denoiser.parameters(), direction, strict=True):
                p.sub_(sign * 1e-5 * d)
    expected = (found[0] - found[1]) / 2e-5
    assert float((operator @ vector - expected).norm() / expected.norm()) < 1e-6


def test_the_scaled_trace_is_the_mean_curvature_along_random_axes():
    subject = regression()
    plain, scaled = dense(Hessian(subject)), dense(Hessian(subject, scaled=True))
    bends = []
    for seed in range(600):
        vector = torch.cat([d.flatten() for d in random_axes(subject.module, seed).axes[0]])
        bends.append(float(vector @ plain @ vector))
    bends = torch.tensor(bends)
    assert abs(float(bends.mean() - scaled.trace())) < 4 * float(bends.std()) / math.sqrt(len(bends))
    assert float(bends.std()) / math.sqrt(len(bends)) < 0.1 * float(scaled.trace())


def test_the_module_is_left_as_it_was_also_after_errors():
    subject = regression(7)
    subject.module[0].bias.requires_grad_(False)
    subject.module[0].weight.grad = torch.ones(6, 5).double()
    before = [(p.detach().clone(), p.requires_grad, p.grad) for p in subject.module.parameters()]
    calls = []

    def stopped(m, x, y):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return subject.loss(m, x, y)

    broken = Subject("b", subject.module, stopped, subject.batch, "")
    vector = torch.ones(57).double()
    for action in (lambda: Hessian(subject) @ vector, lambda: GaussNewton(subject) @ vector):
        action()
    with pytest.raises(KeyboardInterrupt):
        Hessian(broken) @ vector
    for p, (value, flag, grad) in zip(subject.module.parameters(), before, strict=True):
        assert torch.equal(p, value)
        assert p.requires_grad == flag
        assert p.grad is grad


def test_bad_requests_are_refused():
    subject = regression()
    with pytest.raises(UserError, match=r"no parameter '0.weights'"):
        Hessian(subject, ["0.weights"])
    with pytest.raises(UserError, match="vectors of length 57"):
        Hessian(subject) @ torch.ones(3)
    with pytest.raises(UserError, match="not split"):
        GaussNewton(Subject("s", subject.module, subject.loss, subject.batch, ""))
    wrong = Split(lambda m, x, y: m(x), lambda out, x, y: out.pow(2).mean(1))
    with pytest.raises(UserError, match="does not give its loss"):
        GaussNewton(Subject("s", subject.module, subject.loss, subject.batch, "", None, wrong))
    with pytest.raises(UserError, match="does not depend"):
        Hessian(Subject("s", subject.module, lambda m, x, y: x.sum(1), subject.batch, "")) @ torch.ones(57)


def test_products_that_share_a_graph_are_the_same_products():
    subject = regression(7)
    for operator in (Hessian(subject), GaussNewton(subject)):
        vectors = torch.randn(operator.size, 3, generator=torch.Generator().manual_seed(3)).double()
        apart = [operator @ vector for vector in vectors.T]
        with operator.held():
            together = [operator @ vector for vector in vectors.T]
            assert not any(p.grad_fn or p.grad is not None for p in subject.module.parameters())
        assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
        with torch.no_grad():
            next(subject.module.parameters()).mul_(1.5)
        assert not torch.allclose(operator @ vectors[:, 0], apart[0])  # nothing is held any more


def test_weights_that_change_while_a_graph_is_held_are_no_silent_error():
    subject = regression()
    operator = Hessian(subject)
    vector = torch.ones(operator.size).double()
    with operator.held():
        operator @ vector
        with torch.no_grad():
            for p in subject.module.parameters():
                p.mul_(1.5)
        with pytest.raises(RuntimeError, match="inplace operation"):
            operator @ vector


def test_a_large_batch_is_not_held(monkeypatch):
    monkeypatch.setattr(operators, "HELD", 22)
    operator = Hessian(regression(7))
    vector = torch.ones(operator.size).double()
    with operator.held():
        assert torch.equal(operator @ vector, operator @ vector)
        assert operator._held == []


def test_the_hessian_of_a_unet_is_that_of_torchs_own_derivatives():
    net = build_network("unet(width=4, multipliers=(1, 2))", (1, 8, 8), seed=0)
    for i, p in enumerate(net.parameters()):
        noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        p.data.add_(0.1 * noise)
    model = DiffusionModel("unet", NetworkDenoiser(net, SCHEDULES.build("cosine"), (1, 8, 8)))
    subject = diffusion_subject(model, load_images("digits"), count=2, bins=2)
    operator = Hessian(subject)
    vector = torch.randn(operator.size, generator=torch.Generator().manual_seed(1))
    pieces = [
        v.reshape(p.shape)
        for v, p in zip(vector.split([p.numel() for p in net.parameters()]), net.parameters(), strict=True)
    ]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for p in net.parameters():
            p.requires_grad_(True)
        loss = subject.loss(subject.module, *subject.batch.tensors).mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        expected = torch.autograd.grad(gradients, list(net.parameters()), pieces)
    expected = torch.cat([e.flatten() for e in expected])
    torch.testing.assert_close(operator @ vector, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
