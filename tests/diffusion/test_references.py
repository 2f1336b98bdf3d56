from itertools import pairwise

import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import per_sample
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser, OptimalDenoiser
from consistency_lab.diffusion.sampling import Sampler, sample_path, start_state
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError

SHAPE = (1, 2, 3)


def random_covariance(size=6, smallest=0.05):
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return matrix @ matrix.T / size + smallest * torch.eye(size, dtype=torch.float64)


def states(schedule, n=8):
    t = torch.linspace(schedule.t_min, schedule.t_max, n, dtype=torch.float64)
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64), t


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_gaussian_denoiser_is_the_wiener_filter(name):
    schedule, covariance = SCHEDULES.build(name), random_covariance()
    mean = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64).reshape(SHAPE)
    x, t = states(schedule)
    x0 = GaussianDenoiser(mean, covariance, schedule)(x, t).x0
    for i in range(len(t)):
        alpha, sigma = schedule.alpha(t[i]), schedule.sigma(t[i])
        # E[x0 | x_t] of a joint Gaussian, from the normal equations and not from an eigendecomposition.
        gain = (
            alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(6, dtype=torch.float64))
        )
        expected = mean.flatten() + gain @ (x[i].flatten() - alpha * mean.flatten())
        assert torch.allclose(x0[i].flatten(), expected, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_optimal_denoiser_equals_brute_force(name, monkeypatch):
    schedule = SCHEDULES.build(name)
    images = torch.rand(37, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    x, t = states(schedule)
    denoiser = OptimalDenoiser(images, schedule)
    x0 = denoiser(x, t).x0
    alpha, sigma = per_sample(schedule.alpha(t), x), per_sample(schedule.sigma(t), x)
    distances = (x[:, None] - alpha[:, None] * images.double()).pow(2).flatten(2).sum(2)
    weights = torch.softmax(-distances / (2 * sigma.flatten(1) ** 2), 1)
    assert torch.allclose(x0, torch.einsum("bn,nchw->bchw", weights, images.double()), atol=1e-9)
    # The stream is cut into chunks for large sets: the same answer.
    monkeypatch.setattr("consistency_lab.diffusion.references._CHUNK_BYTES", 8 * 14 * 5)
    assert torch.allclose(denoiser(x, t).x0, x0, atol=1e-12)


def test_optimal_denoiser_tends_to_the_nearest_image_and_to_the_mean():
    schedule = SCHEDULES.build("edm")
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    denoiser = OptimalDenoiser(images, schedule)
    nearest = torch.cdist(x.flatten(1), images.double().flatten(1)).argmin(1)
    assert torch.allclose(denoiser(x, schedule.t_min).x0, images[nearest].double(), atol=1e-6)
    assert torch.allclose(denoiser(x, 1.0).x0, images.double().mean(0).expand(5, *SHAPE), atol=2e-3)


def test_constant_denoiser_samples_its_image():
    schedule = SCHEDULES.build("linear")
    image = torch.full(SHAPE, 0.25)
    start = start_state(ConstantDenoiser(image, schedule), SharedNoise(0).initial(range(3), SHAPE))
    *_, last = sample_path(ConstantDenoiser(image, schedule), start, Sampler(steps=10))
    assert torch.allclose(last.x_t, image.double().expand(3, *SHAPE), atol=1e-6)


@pytest.mark.parametrize("steps", [20, 100])
def test_the_optimal_denoiser_lands_on_training_images(steps):
    images = load_images("digits").take(range(400), "some digits").all()
    denoiser = OptimalDenoiser(images, SCHEDULES.build("linear"))
    start = start_state(denoiser, SharedNoise(0).initial(range(32), (1, 8, 8)))
    *_, last = sample_path(denoiser, start, Sampler(steps=steps))
    to_nearest = (last.x_t[:, None] - images.double()).pow(2).flatten(2).mean(2).amin(1)
    assert to_nearest.max() < 1e-4  # digits themselves are 0.1 and more apart


@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2)])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_gaussian_map_is_approached_at_the_solvers_order(name, method, order):
    schedule = SCHEDULES.build(name)
    # Variances well above the lowest noise level, which the grid itself resolves at the order that is asked for.
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), random_covariance(smallest=0.5), schedule)
    start = start_state(denoiser, SharedNoise(0).initial(range(16), SHAPE))
    exact = denoiser.flow_map(start, schedule.t_max)
    errors = []
    for steps in (100, 200, 400):
        *_, last = sample_path(denoiser, start, Sampler(method, steps))
        errors.append(float((last.x_t - exact).pow(2).mean().sqrt()))
    gains = [a / b for a, b in pairwise(errors)]
    # Near data the linear schedule has s ~ sqrt(t): the last step, from s(1/n) to 0, is an Euler step whose error falls as 1/n whatever
    # the solver does before.
    reached = 1 if name == "linear" else order
    assert min(gains) > 2 ** (reached - 0.35)
    assert errors[-1] < {1: 1e-2, 2: 2e-4}[order]


@pytest.mark.parametrize(("method", "bound"), [("ddim", 2e-3), ("heun", 1e-3), ("dpm++2m", 1e-3)])
def test_the_gaussian_map_of_the_digits_at_a_thousand_steps(method, bound):
    # Root mean square over pixels, on the covariance of real images, whose smallest variances lie below the first noise level.
    denoiser = GaussianDenoiser.fit(load_images("digits").all(), SCHEDULES.build("linear"))
    start = start_state(denoiser, SharedNoise(0).initial(range(64), (1, 8, 8)))
    *_, last = sample_path(denoiser, start, Sampler(method, 1000))
    assert (last.x_t - denoiser.flow_map(start, 1.0)).pow(2).mean().sqrt() < bound


def test_bad_references_are_refused():
    schedule = SCHEDULES.build("linear")
    with pytest.raises(UserError, match="6 x 6"):
        GaussianDenoiser(torch.zeros(SHAPE), torch.eye(5), schedule)
    with pytest.raises(UserError, match="two images"):
        GaussianDenoiser.fit(torch.zeros(1, *SHAPE), schedule)
    with pytest.raises(UserError, match="at least one"):
        OptimalDenoiser(torch.zeros(0, *SHAPE), schedule)
