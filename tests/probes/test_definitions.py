"""Half-times, gradients and rates against formulas and brute force."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import functional_call, grad, vmap

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.intervals import jackknife
from consistency_lab.probes.convergence import half_times
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.gradients import adam_moments, gradient_moments
from consistency_lab.probes.marginals import STEP, gaussian_kl_rate, gaussian_kl_rates, log_snr_rate


def test_half_times_invert_an_error_that_falls_with_the_log_of_the_step():
    steps = np.array([10, 100, 1000, 10_000])
    slow, fast, rising = 4 - np.log10(steps), np.array([1.0, 0.2, 0.1, 0.0]), np.log10(steps)
    found = half_times(steps, np.stack([slow, fast, rising], 1))
    assert found[0] == pytest.approx(10**2.5)  # half way from 3 to 0
    assert found[1] == pytest.approx(10 * 10 ** (0.5 / 0.8))
    assert np.isnan(found[2])


def test_a_half_time_needs_two_checkpoints():
    with pytest.raises(UserError, match="at least 2 checkpoints"):
        half_times(np.array([5]), np.ones((1, 3)))


def per_sample(module, x, y):
    return (module(x) - y).pow(2).mean(1)


def case(n=37):
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    x, y = (torch.randn(n, k, generator=generator, dtype=torch.float64) for k in (4, 2))
    weights = {k: v.detach() for k, v in module.named_parameters()}
    each = vmap(
        grad(lambda w, a, b: per_sample(lambda v: functional_call(module, w, (v,)), a[None], b[None]).sum()),
        (None, 0, 0),
    )
    return module, x, y, torch.cat([g.flatten(1) for g in each(weights, x, y).values()], 1).numpy()


def test_gradient_moments_are_those_of_vmaps_gradients():
    module, x, y, gradients = case()
    found = gradient_moments(module, per_sample, (x, y), 5)
    for kept, moments in [(np.arange(37) % 5 != g, found.without[g]) for g in range(5)] + [
        (slice(None), found.estimate)
    ]:
        rows = gradients[kept]
        trace = np.cov(rows.T).trace()
        assert moments[1] == pytest.approx(trace, rel=1e-5)
        assert moments[0] == pytest.approx((rows.mean(0) ** 2).sum() - trace / len(rows), rel=1e-4, abs=1e-6)
        assert moments[2] == pytest.approx((rows**2).sum(1).mean(), rel=1e-5)
    assert np.allclose(found.by_weight.numpy(), (gradients**2).mean(0), rtol=1e-5)


def test_adams_metric_is_that_of_its_steps():
    rng = np.random.default_rng(0)
    moments = rng.exponential(size=(4, 50)) * np.geomspace(1e-3, 1e3, 50)
    moments[:, 7] = 0.0  # a weight that nothing depends on
    found = adam_moments([torch.from_numpy(row).float() for row in moments])
    scale = np.sqrt(moments.mean(0))
    used = scale > 0
    assert np.allclose(found, (moments[:, used] / scale[used]).sum(1), rtol=1e-5)
    # With one signal-to-noise ratio for all weights its root is the density that lowers the loss fastest: no small change does better.
    pull = lambda p: (moments.mean(0)[used] / np.sqrt((moments[:, used] / p[:, None]).mean(0))).sum()  # noqa: E731
    weights = lambda p: moments.mean(0)[used] * (moments[:, used] / p[:, None]).mean(0) ** -1.5  # noqa: E731
    density = np.full(4, 0.25)
    for _ in range(200):  # the fixed point of p_t^2 ~ sum_i G_i^2 v_i(p)^-3/2 E g_ti^2
        density = np.sqrt((weights(density) * moments[:, used]).sum(1))
        density /= density.sum()
    for k in range(4):
        other = density * (1 + 0.1 * np.eye(4)[k])
        assert pull(density) > pull(other / other.sum())
    first = np.sqrt(found) / np.sqrt(found).sum()  # its first step from uniform draws
    assert pull(first) > pull(np.full(4, 0.25))


def test_the_squared_norm_of_a_mean_gradient_has_no_bias():
    # g_i = w - x_i has the mean w and the covariance of x: over many draws of 4 samples the mean estimate is |w|^2.
    module = nn.Linear(3, 1, bias=False).double()
    loss = lambda m, x: 0.5 * (m.weight - x).pow(2).sum(1)  # noqa: E731
    x = torch.randn(1500, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = np.array([gradient_moments(module, loss, (draw,), 2).estimate for draw in x])
    error = 4 * found.std(0) / np.sqrt(len(found))
    assert abs(found[:, 0].mean() - float(module.weight.detach().pow(2).sum())) < error[0]
    assert abs(found[:, 1].mean() - 3.0) < error[1]


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_kl_rate_is_that_of_two_normal_distributions(name):
    schedule, size = SCHEDULES.build(name), 6
    generator = torch.Generator().manual_seed(0)
    root, mean = (torch.randn(s, generator=generator, dtype=torch.float64) * 0.4 for s in ((size, size), (size,)))
    covariance, times = root @ root.T, torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)
    found = gaussian_kl_rate(mean, covariance, schedule, times)
    for t, rate in zip(times, found, strict=True):
        near, far = (
            MultivariateNormal(
                schedule.alpha(s) * mean,
                schedule.alpha(s) ** 2 * covariance + schedule.sigma(s) ** 2 * torch.eye(size, dtype=torch.float64),
            )
            for s in (t - STEP / 2, t + STEP / 2)
        )
        assert rate == pytest.approx(float(kl_divergence(near, far)) / STEP**2, rel=1e-5)


def test_the_kl_rate_tends_to_half_the_fisher_information():
    # One pixel of variance v on EDM: p_t = N(0, v + s^2), whose Fisher information of t is (d log(v + s^2) / dt)^2 / 2.
    schedule, v = SCHEDULES.build("edm"), 0.25
    times = torch.tensor([0.4, 0.6, 0.8], dtype=torch.float64)
    s = schedule.sigma(times)
    slope = 2 * s * 7 * s / times / (v + s**2)
    found = gaussian_kl_rate(torch.zeros(1), torch.tensor([[v]]), schedule, times)
    np.testing.assert_allclose(found, slope.numpy() ** 2 / 4, rtol=0.02)


def test_rates_with_a_group_left_out_are_those_of_the_other_images():
    x, schedule = torch.randn(23, 1, 2, 2, generator=torch.Generator().manual_seed(0)), SCHEDULES.build("linear")
    times = torch.tensor([0.2, 0.7])
    found, without = gaussian_kl_rates(x, schedule, times, 4)
    whole = _rate_of(x, schedule, times)
    others = np.stack([_rate_of(x[np.arange(23) % 4 != g], schedule, times) for g in range(4)])
    bias = 3 * (others.mean(0) - whole)
    np.testing.assert_allclose(found, whole - bias, rtol=1e-7)
    np.testing.assert_allclose(without, others - bias, rtol=1e-7)


def test_few_images_give_the_rate_of_their_distribution_and_an_interval_that_covers_it():
    variances, times = torch.linspace(0.01, 0.5, 16, dtype=torch.float64), torch.tensor([0.05, 0.2, 0.5, 0.9])
    schedule, generator = SCHEDULES.build("linear"), torch.Generator().manual_seed(0)
    mean = torch.full((16,), 0.3, dtype=torch.float64)
    true = gaussian_kl_rate(mean, torch.diag(variances), schedule, times)
    found, covered = [], []
    for _ in range(200):
        x = torch.randn(200, 16, generator=generator, dtype=torch.float64) * variances.sqrt() + mean
        ends = jackknife(*gaussian_kl_rates(x.reshape(-1, 1, 4, 4), schedule, times, 16))
        found.append(ends.estimate)
        covered.append((ends.low <= true) & (true <= ends.high))
    np.testing.assert_allclose(np.mean(found, 0), true, rtol=0.01)
    assert (np.mean(covered, 0) > 0.9).all()


def _rate_of(x, schedule, times):
    flat = x.double().flatten(1)
    return gaussian_kl_rate(flat.mean(0), torch.cov(flat.T, correction=0), schedule, times)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_information_is_lost_at_the_rate_of_the_mutual_information(name):
    # Gaussian data: I(x0; x_t) = 1/2 sum_k log(1 + SNR v_k).
    variances = torch.linspace(0.002, 0.03, 16, dtype=torch.float64)
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * variances.sqrt()
    images = ImageSet("gaussian", x.reshape(-1, 1, 4, 4).float().clamp(-1, 1))
    schedule = SCHEDULES.build(name)
    exact = GaussianDenoiser(torch.zeros(1, 4, 4), torch.diag(variances), schedule)
    ds = probe_difficulty(DiffusionModel("exact", exact), images, count=2000, bins=6, detail=16)
    times = torch.tensor(ds["t"].values)
    snr = torch.exp(schedule.log_snr(times))[:, None]
    expected = (0.5 * variances * snr / (1 + variances * snr)).sum(1) * log_snr_rate(schedule, times)
    found, low, high = (ds[f"profile{end}"].sel(definition="information").values for end in ("", "_low", "_high"))
    assert (np.abs(found - expected.numpy()) < 2.4 * (high - low)).all()
    np.testing.assert_allclose(found, expected, rtol=0.08)
    np.testing.assert_array_equal(
        list(ds["definition"].values)[-2:], ["KL rate", "information"]
    )  # no weights, no run folder
