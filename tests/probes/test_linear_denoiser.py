"""A linear denoiser on Gaussian images, of which everything is known in closed form: loss per t, landscapes, spectrum, trace."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_error, denoising_loss, mean_square, noisy_state
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.probes.curvature import curvature_spectrum
from consistency_lab.probes.directions import random_axes
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.probes.operators import GaussNewton, Hessian
from consistency_lab.probes.plane import plane_landscape
from consistency_lab.probes.subject import Split, Subject

SHAPE, SIZE = (1, 2, 2), 4


class Linear(nn.Module):
    """``W x`` on the pixels, at every time."""

    def __init__(self, seed=0):
        super().__init__()
        draw = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.weight = nn.Parameter(0.5 * draw)

    def forward(self, x, t, cond=None):
        return (x.flatten(1) @ self.weight.T).reshape(x.shape)


def linear_subject(count=12, bins=3, chunk=1024, seed=0):
    """The subject, and per level its second moments ``C (bins, 4, 4)`` of x_t and ``M (bins, 4, 4)`` of eps x_t^T."""
    schedule, generator = SCHEDULES.build("cosine"), torch.Generator().manual_seed(seed)
    spread = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    x0 = (torch.randn(count, SIZE, generator=generator, dtype=torch.float64) @ spread).reshape(count, *SHAPE)
    eps = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    times = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    tensors = [x0.repeat(bins, 1, 1, 1), times.repeat_interleave(count), eps.repeat(bins, 1, 1, 1)]
    denoiser = NetworkDenoiser(Linear(), schedule, SHAPE)
    loss, split = partial(denoising_loss, units="eps"), Split(partial(denoising_error, units="eps"), mean_square)
    subject = Subject("linear", denoiser, loss, FrozenBatch(tensors, chunk), "mean squared error in eps", times, split)
    x_t = noisy_state(schedule, *tensors).reshape(bins, count, SIZE)
    noise = tensors[2].reshape(bins, count, SIZE)
    return subject, x_t.mT @ x_t / count, noise.mT @ x_t / count, noise.pow(2).mean((1, 2))


def loss_formula(weights, second, mixed, noise):
    """Per level: ``(tr W C W^T - 2 tr W M^T) / d + mean eps^2``."""
    return torch.stack(
        [
            ((weights @ c @ weights.T).trace() - 2 * (weights @ m.T).trace()) / SIZE + n
            for c, m, n in zip(second, mixed, noise, strict=True)
        ]
    )


def hessian_formula(second):
    """``2 / d I x C`` for the row-major weights, C the mean over levels."""
    return torch.kron(torch.eye(SIZE, dtype=torch.float64), 2 / SIZE * second.mean(0))


def weights_of(subject):
    return subject.module.network.weight.detach()


def test_the_loss_per_t_is_its_formula():
    subject, *moments = linear_subject()
    expected = loss_formula(weights_of(subject), *moments)
    np.testing.assert_allclose(subject.losses().mean(1), expected, rtol=1e-12)


def test_the_loss_per_t_is_that_of_the_gaussian():
    subject, *_ = linear_subject(count=4000)
    schedule, weights = subject.module.schedule, weights_of(subject)
    losses = subject.losses()
    for t, found in zip(subject.times, losses, strict=True):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        second = alpha**2 * torch.diag(torch.tensor([4.0, 1.0, 0.25, 0.01])) + sigma**2 * torch.eye(SIZE)
        exact = ((weights @ second.double() @ weights.T).trace() - 2 * sigma * weights.trace()) / SIZE + 1
        assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / len(found) ** 0.5


@pytest.mark.parametrize("chunk", [1024, 7])
def test_the_hessian_is_its_formula(chunk):
    subject, second, *_ = linear_subject(chunk=chunk)
    for operator in (Hessian(subject), GaussNewton(subject)):
        found = operator @ torch.eye(SIZE**2, dtype=torch.float64)
        torch.testing.assert_close(found, hessian_formula(second), rtol=1e-10, atol=1e-12)


def test_the_spectrum_and_the_trace_are_their_formulas_at_every_t():
    subject, second, *_ = linear_subject()
    result = curvature_spectrum(subject, eigenvalues=6, probes=40, steps=16, products=48)
    parts = [second, *second[:, None]]  # all, then each level
    assert result["part"].values.tolist()[0] == "all"
    assert np.isnan(result["t"][0])
    np.testing.assert_allclose(result["t"][1:], subject.times)
    for i, moment in enumerate(parts):
        exact = torch.linalg.eigvalsh(hessian_formula(moment)).numpy()
        for name in ("hessian", "gauss_newton"):
            part = result.isel(part=i).sel(operator=name)
            np.testing.assert_allclose(part["eigenvalue"].sel(end="top"), exact[::-1][:6], rtol=1e-6)
            np.testing.assert_allclose(part["eigenvalue"].sel(end="bottom"), exact[:6], rtol=1e-6)
            assert (part["converged"] == 1).all()
            assert (part["residual"] < 1e-6).all()
            assert float(part["trace"]) == pytest.approx(exact.sum(), rel=1e-9)
            assert float(part["trace_error"]) < 1e-9
            assert float(part["trace_low"]) < float(part["trace"]) < float(part["trace_high"])
            assert abs(float(part["square"]) - (exact**2).sum()) < 3 * float(part["square_error"])
            grid, density = part["grid"].values, part["density"].values
            assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
            first = np.trapezoid(density * grid, grid) * len(exact)
            mean_error = 3 * (exact**2).mean() ** 0.5 * len(exact) / 40**0.5
            assert abs(first - exact.sum()) < mean_error
    assert float(result["parameters"]) == 16


def test_lines_and_planes_are_their_formulas():
    subject, *moments = linear_subject()
    weights = weights_of(subject)
    (first,), (one, two) = random_axes(subject.module, 3).axes, random_axes(subject.module, 3, 2).axes
    line = line_landscape(subject, points=9, seed=3)
    for a in line["position"].values:
        expected = loss_formula(weights + a * first[0], *moments)
        np.testing.assert_allclose(line["loss_by_t"].sel(position=a), expected, rtol=1e-10)
    vector = first[0].flatten()
    bend = float(vector @ hessian_formula(moments[0]) @ vector)
    assert float(line["curvature"]) == pytest.approx(bend, rel=1e-8)
    assert float(line["curvature_low"]) < bend < float(line["curvature_high"])
    assert float(line["relative_curvature"]) == pytest.approx(bend / float(subject.losses().mean()), rel=1e-8)
    assert float(line["roughness"]) < 1e-10
    plane = plane_landscape(subject, points=5, seed=3)
    for y in plane["y"].values:
        for x in plane["x"].values:
            expected = loss_formula(weights + x * one[0] + y * two[0], *moments)
            np.testing.assert_allclose(plane["loss_by_t"].sel(y=y, x=x), expected, rtol=1e-10)
    assert float(plane["roughness"]) < 1e-10


def test_gradient_numbers_are_their_formulas():
    subject, second, mixed, _ = linear_subject()
    weights, direction = weights_of(subject), random_axes(subject.module, 3).axes[0][0]
    gradient = 2 / SIZE * (weights @ second.mean(0) - mixed.mean(0))
    slope = 2 / SIZE * direction @ second.mean(0)
    line = line_landscape(subject, points=9, seed=3)
    for a in line["gradient_position"].values:
        there = gradient + a * slope
        cosine = float((gradient * there).sum() / gradient.norm() / there.norm())
        assert float(line["gradient_cosine"].sel(gradient_position=a)) == pytest.approx(cosine, rel=1e-9)
        change = float(abs(a) * slope.norm() / gradient.norm())
        assert float(line["gradient_change"].sel(gradient_position=a)) == pytest.approx(change, rel=1e-9)
    assert float(line["lipschitz"]) == pytest.approx(float(slope.norm() / direction.norm()), rel=1e-9)
    level = float(subject.losses().mean())
    assert float(line["relative_lipschitz"]) == pytest.approx(float(slope.norm() * direction.norm()) / level, rel=1e-9)
    assert float(line["gradient_rms"]) == pytest.approx(float(gradient.pow(2).mean().sqrt()), rel=1e-9)
    near = line["gradient_cosine"].sel(gradient_position=[-0.1, 0.1]).mean()
    assert float(line["predictiveness"]) == pytest.approx(float(near), rel=1e-9)


def test_intervals_hold_the_value_of_a_large_sample():
    large, *_ = linear_subject(count=3000)
    exact = line_landscape(large, points=5, seed=3)
    inside = dict.fromkeys(("curvature", "relative_curvature", "lipschitz", "relative_lipschitz"), 0)
    for seed in range(1, 21):
        found = line_landscape(linear_subject(count=24, seed=seed)[0], points=5, seed=3)
        for name in inside:
            inside[name] += found[f"{name}_low"] < exact[name] < found[f"{name}_high"]
    assert min(inside.values()) >= 16  # of 20, at 95 %


def test_a_spectrum_shows_its_products(capsys):
    subject = linear_subject()[0]
    options = {"eigenvalues": 1, "probes": 2, "steps": 4, "products": 6}
    curvature_spectrum(subject, progress=True, **options)
    shown = capsys.readouterr().err
    total = 2 * 2 * ((4 + 2) * 4 + 6)  # two operators, all samples and the noise levels
    assert f"curvature of {subject.name}: 100%" in shown
    assert f"{total}" in shown.splitlines()[-1]
    curvature_spectrum(subject, progress=False, **options)
    assert capsys.readouterr().err == ""
