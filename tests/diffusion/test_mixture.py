import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.mixture import MixtureDenoiser
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES


def states(schedule, count=6):
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(schedule.t_min + 0.1, schedule.t_max - 0.1, count, dtype=torch.float64)
    return torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64), t


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_one_component_is_the_gaussian_denoiser(name):
    law, schedule = load_images("gaussian(count=10)").law, SCHEDULES.build(name)
    x, t = states(schedule)
    gaussian = GaussianDenoiser(law.mean, law.covariance, schedule)
    torch.testing.assert_close(MixtureDenoiser(law, schedule)(x, t).x0, gaussian(x, t).x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["linear", "edm"])
def test_the_score_is_the_gradient_of_the_log_density(name):
    law, schedule = load_images("mixture(count=10)").law, SCHEDULES.build(name)
    x, t = states(schedule)
    x.requires_grad_(True)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    covariance = alpha.reshape(-1, 1, 1, 1) ** 2 * law.covariances + sigma.reshape(-1, 1, 1, 1) ** 2 * torch.eye(64)
    components = torch.distributions.MultivariateNormal(alpha[:, None, None] * law.means.flatten(1), covariance)
    density = torch.logsumexp(components.log_prob(x.flatten(1)[:, None]) + law.weights.log(), 1)
    (score,) = torch.autograd.grad(density.sum(), x)
    with torch.no_grad():
        torch.testing.assert_close(MixtureDenoiser(law, schedule)(x, t).score, score, rtol=1e-6, atol=1e-6)


def test_the_optimal_denoiser_of_many_draws_approaches_it():
    images = load_images("mixture(count=20000)")
    schedule = SCHEDULES.build("linear")
    x0, _ = images.law.draw(32, seed=5)
    t = torch.full((32,), 0.5, dtype=torch.float64)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = schedule.alpha(t).reshape(-1, 1, 1, 1) * x0 + schedule.sigma(t).reshape(-1, 1, 1, 1) * noise
    exact = MixtureDenoiser(images.law, schedule)(x, t).x0
    few, many = (OptimalDenoiser(images.all()[:n], schedule)(x, t).x0 for n in (200, 20_000))
    errors = [float((found - exact).pow(2).mean()) for found in (few, many)]
    assert errors[1] < 0.5 * errors[0]
