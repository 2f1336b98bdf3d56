import math
from itertools import pairwise

import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.prediction import per_sample
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser
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


def test_constant_denoiser_samples_its_image():
    schedule = SCHEDULES.build("linear")
    image = torch.full(SHAPE, 0.25)
    start = start_state(ConstantDenoiser(image, schedule), SharedNoise(0).initial(range(3), SHAPE))
    *_, last = sample_path(ConstantDenoiser(image, schedule), start, Sampler(steps=10))
    assert torch.allclose(last.x_t, image.double().expand(3, *SHAPE), atol=1e-6)


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


# Measured on Gaussian data of variance 0.05 in every direction, from 200 to 800 steps (EDM: 50 to 200): of the image, and of the state
# before the last step. On the linear and cosine schedule s ~ sqrt(t) near data, so that the last step, from s(1/n) to 0, errs by 1/n; and
# steps in log-SNR do not shrink there with n, which DPM-Solver++ 2M feels before. (Its errors of both kinds have opposite signs: below 1.)
MEASURED = {
    "heun": {"linear": (1.16, 1.97), "cosine": (1.18, 2.01), "flow": (2.0, 2.0), "edm": (2.11, 2.05)},
    "dpm++2m": {"linear": (0.65, 1.5), "cosine": (0.48, 1.55), "flow": (1.73, 1.77), "edm": (2.14, 2.08)},
}


@pytest.mark.parametrize("method", MEASURED)
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_last_step_costs_the_second_order_on_some_schedules(name, method):
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), 0.05 * torch.eye(math.prod(SHAPE)), SCHEDULES.build(name))
    start = start_state(denoiser, SharedNoise(0).initial(range(16), SHAPE))
    exact, errors = denoiser.flow_map(start, denoiser.schedule.t_max), []
    for steps in (50, 200) if name == "edm" else (200, 800):
        *_, before, last = sample_path(denoiser, start, Sampler(method, steps))
        ends = last.x_t, denoiser.flow_map(before.x_t, before.t)  # as it went on, and exactly
        errors.append([float((end - exact).pow(2).mean().sqrt()) for end in ends])
    orders = [math.log(a / b, 4) for a, b in zip(*errors, strict=True)]
    assert orders == pytest.approx(MEASURED[method][name], abs=0.1)


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


class Wiener(torch.nn.Module):
    """A network that knows the Gaussian's answer, and gives it in the units of a parametrisation."""

    def __init__(self, exact, predicts, d):
        super().__init__()
        self.exact, self.predicts, self.d, self.weight = (
            exact,
            predicts,
            d,
            torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)),
        )

    def forward(self, shown, t, cond):
        schedule = self.exact.schedule
        alpha, sigma = per_sample(schedule.alpha(t), shown), per_sample(schedule.sigma(t), shown)
        if self.predicts == "edm":
            x_t = shown * (sigma**2 + (self.d * alpha) ** 2).sqrt()
        else:
            scale = schedule.input_scale(alpha, sigma)
            x_t = shown if scale is None else shown / scale
        answer = self.exact(x_t, t)
        if self.predicts != "edm":
            return answer.in_units(self.predicts)
        y, s = x_t / alpha, sigma / alpha
        skip, out = self.d**2 / (s**2 + self.d**2), s * self.d / (s**2 + self.d**2).sqrt()
        return (answer.x0 - skip * y) / out


@pytest.mark.parametrize("name", SCHEDULES.names())
# A correction of the Gaussian is one to begin with: test_gaussian_correction.py.
@pytest.mark.parametrize("predicts", [name for name in PREDICTIONS.names() if name != "gaussian"])
def test_the_gaussian_oracle_holds_for_every_schedule_and_prediction(name, predicts):
    exact = GaussianDenoiser(torch.full(SHAPE, 0.2), random_covariance(smallest=0.5), SCHEDULES.build(name))
    text = "edm(sigma_data=0.7)" if predicts == "edm" else predicts
    denoiser = NetworkDenoiser(Wiener(exact, predicts, 0.7), exact.schedule, SHAPE, text)
    start = start_state(exact, SharedNoise(0).initial(range(8), SHAPE))
    *_, last = sample_path(denoiser, start, Sampler("dpm++2m", 300))
    assert (last.x_t - exact.flow_map(start, exact.schedule.t_max)).pow(2).mean().sqrt() < 1e-3


def test_two_schedules_of_one_gaussian_agree_at_equal_log_snr_and_not_at_equal_time():
    # A state is shared as x0 + s eps and rescaled by each schedule's alpha.
    covariance, level = random_covariance(), torch.tensor(0.7, dtype=torch.float64)
    state = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    answers, at_half = [], []
    for name in SCHEDULES.names():
        schedule = SCHEDULES.build(name)
        denoiser = GaussianDenoiser(torch.zeros(SHAPE), covariance, schedule)
        t = float(schedule.time_from_log_snr(level))
        answers.append(denoiser(schedule.alpha(t) * state, t).x0)
        at_half.append(denoiser(schedule.alpha(0.5) * state, 0.5).x0)
    assert all(torch.allclose(answers[0], other, atol=1e-9) for other in answers[1:])
    assert not any(torch.allclose(at_half[0], other, atol=1e-2) for other in at_half[1:])
