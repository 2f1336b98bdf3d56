import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from consistency_lab.diffusion.loss import noisy_state
from consistency_lab.diffusion.schedule import SCHEDULES, TableVP
from consistency_lab.errors import UserError

ALL = SCHEDULES.names()


def inner_times(schedule, n=1001):
    return torch.linspace(schedule.t_min, schedule.t_max, n, dtype=torch.float64)


def test_linear_schedule_is_the_product_of_the_papers_thousand_steps():
    schedule = SCHEDULES.build("linear")
    product = 1.0
    for step, beta in enumerate(np.linspace(1e-4, 0.02, 1000)):
        product *= 1.0 - beta
        t = (step + 1) / 1000
        assert float(schedule.alpha(t)) == pytest.approx(product**0.5, rel=1e-12)
        assert float(schedule.sigma(t)) == pytest.approx((1 - product) ** 0.5, rel=1e-12)


def test_states_equal_diffusers_add_noise_at_every_step():
    schedule = SCHEDULES.build("linear")
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.rand(1000, 1, 4, 4, generator=generator) * 2 - 1, torch.randn(1000, 1, 4, 4, generator=generator)
    step = torch.arange(1000)
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear").add_noise(x0, eps, step)
    ours = noisy_state(schedule, x0, (step + 1) / 1000, eps)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_time_runs_from_data_to_noise(name):
    schedule = SCHEDULES.build(name)
    assert float(schedule.sigma(0.0)) == pytest.approx(0.0, abs=1e-12)
    assert float(schedule.alpha(0.0)) == pytest.approx(1.0)
    log_snr = schedule.log_snr(inner_times(schedule))
    assert (log_snr.diff() < 0).all()
    assert log_snr[-1] < -8 < 8 < log_snr[0]


@pytest.mark.parametrize("name", ALL)
def test_log_snr_and_its_inverse_round_trip(name):
    schedule = SCHEDULES.build(name)
    t = inner_times(schedule)
    assert torch.allclose(schedule.time_from_log_snr(schedule.log_snr(t)), t, atol=1e-10, rtol=0)
    direct = torch.log(schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)
    assert torch.allclose(schedule.log_snr(t), direct, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_times_outside_the_range_are_refused(name):
    schedule = SCHEDULES.build(name)
    for t in (schedule.t_min - 1e-3, schedule.t_max + 1e-3, torch.tensor([0.5, 1.2])):
        with pytest.raises(UserError, match="leaves"):
            schedule.log_snr(t)
    with pytest.raises(UserError, match="covers"):
        schedule.time_from_log_snr(schedule.log_snr_range[1] + 0.1)


def test_cosine_and_flow_follow_their_formulas():
    t = inner_times(SCHEDULES.build("cosine"))
    expected = np.cos((t.numpy() + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)
    assert np.allclose(SCHEDULES.build("cosine").alpha(t).numpy(), expected, atol=1e-14)
    flow = SCHEDULES.build("flow")
    assert torch.equal(flow.alpha(t) + flow.sigma(t), torch.ones_like(t))


def test_edm_grid_is_equation_five():
    steps, rho, low, high = 18, 7.0, 0.002, 80.0
    i = np.arange(steps)
    expected = (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    schedule = SCHEDULES.build("edm")
    assert np.allclose(schedule.sigma(schedule.grid(steps)).numpy(), [*expected, 0.0], rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_grids_decrease_from_t_max_to_data(name, steps):
    schedule = SCHEDULES.build(name)
    grid = schedule.grid(steps)
    assert len(grid) == steps + 1
    assert float(grid[0]) == schedule.t_max
    assert float(grid[-1]) == 0.0
    assert (grid.diff() < 0).all()
    schedule.check(grid[:-1])


@pytest.mark.parametrize("steps", [0, -1, 2000])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(UserError, match="step"):
        SCHEDULES.build("linear").grid(steps)


def test_tables_that_are_no_schedule_are_refused():
    with pytest.raises(UserError, match="decreasing"):
        TableVP([-0.1, -0.05, -0.2])
    with pytest.raises(UserError, match="decreasing"):
        TableVP([-0.1, -np.inf])


def test_equal_schedules_are_equal():
    assert SCHEDULES.build("linear") == SCHEDULES.build("linear(steps=1000)")
    assert SCHEDULES.build("linear") != SCHEDULES.build("linear(beta_end=0.03)")
    assert TableVP([-0.1, -0.2]) != TableVP([-0.1, -0.3])


@pytest.mark.parametrize("name", ALL)
def test_both_scales_at_once_are_each_alone(name):
    schedule = SCHEDULES.build(name)
    t = inner_times(schedule, 7)
    alpha, sigma = schedule.alpha_sigma(t)
    assert torch.equal(alpha, schedule.alpha(t))
    assert torch.equal(sigma, schedule.sigma(t))
