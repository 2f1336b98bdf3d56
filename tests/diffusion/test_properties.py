import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import STREAMS, SharedNoise, standard_normal
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser
from consistency_lab.diffusion.sampling import SAMPLERS, Sampler, sample_path, start_state
from consistency_lab.diffusion.schedule import SCHEDULES

SHAPE = (1, 2, 2)


def between(low, high):
    return st.floats(low, high, allow_nan=False)


linear = st.builds(
    lambda start, end, steps: SCHEDULES.build(f"linear(beta_start={start}, beta_end={end}, steps={steps})"),
    between(1e-5, 1e-3),
    between(0.005, 0.05),
    st.integers(20, 1500),
)
cosine = st.builds(lambda s: SCHEDULES.build(f"cosine(s={s})"), between(1e-4, 0.1))
edm = st.builds(
    lambda low, high, rho: SCHEDULES.build(f"edm(sigma_min={low}, sigma_max={high}, rho={rho})"),
    between(1e-3, 0.1),
    between(5.0, 200.0),
    between(1.0, 10.0),
)
flow = st.just(SCHEDULES.build("flow"))
schedules = st.one_of(linear, cosine, edm, flow)
shares = st.lists(between(0.0, 1.0), min_size=1, max_size=20)


def times(schedule, shares):
    """Those shares of the range of times, rising, none twice."""
    t = np.unique(np.round(shares, 6)) * (schedule.t_max - schedule.t_min) + schedule.t_min
    return torch.from_numpy(np.clip(t, schedule.t_min, schedule.t_max))


@given(schedules, shares)
def test_the_log_snr_falls_strictly_and_its_inverse_gives_the_time_back(schedule, shares):
    t = times(schedule, shares)
    level = schedule.log_snr(t)
    assert bool((level.diff() < 0).all())
    assert torch.allclose(schedule.time_from_log_snr(level), t, rtol=0, atol=1e-8)
    low, high = schedule.log_snr_range
    assert bool(((level >= low) & (level <= high)).all())


@given(schedules, shares)
def test_signal_falls_from_one_and_noise_rises_from_zero(schedule, shares):
    t = torch.from_numpy(np.unique(shares))
    alpha, sigma = schedule.alpha_sigma(t)
    assert torch.equal(alpha, schedule.alpha(t))
    assert torch.equal(sigma, schedule.sigma(t))
    assert bool(((alpha >= 0) & (alpha <= 1) & (sigma >= 0)).all())
    assert bool((alpha.diff() <= 0).all() and (sigma.diff() >= 0).all())
    assert float(schedule.alpha(0.0)) == 1.0
    assert float(schedule.sigma(0.0)) == 0.0
    if schedule.spec.startswith(("linear", "cosine")):
        assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-12)


@given(schedules, st.integers(1, 20))
def test_a_grid_falls_from_the_noisiest_time_to_data_and_stays_where_the_schedule_can_convert(schedule, steps):
    grid = schedule.grid(steps)
    assert grid.shape == (steps + 1,)
    assert float(grid[0]) == schedule.t_max
    assert float(grid[-1]) == 0.0
    assert bool((grid.diff() < 0).all())
    assert torch.equal(schedule.check(grid[:-1]), grid[:-1])


@given(schedules, st.integers(1, 12), st.sampled_from(["ddim", "heun", "dpm++2m"]), st.integers(0, 2**64 - 1))
def test_towards_a_single_image_every_solver_of_the_flow_walks_straight(schedule, steps, method, seed):
    image = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(SHAPE)
    noise = SharedNoise(seed).initial(range(2), SHAPE).double()
    denoiser = ConstantDenoiser(image, schedule)
    start = schedule.alpha(schedule.t_max) * image + schedule.sigma(schedule.t_max) * noise
    for step in sample_path(denoiser, start, Sampler(method, steps)):
        straight = schedule.alpha(step.t) * image + schedule.sigma(step.t) * noise
        assert torch.allclose(step.x_t, straight, rtol=1e-9, atol=1e-9)


def followed(method, variance, levels):
    """By what a solver multiplies the distance from the mean of a Gaussian, in x / alpha, along levels sigma / alpha."""
    factor = 1.0
    for s, after in itertools.pairwise(levels):
        slope = s / (variance + s**2)
        there = 1 + (after - s) * slope
        if method == "heun" and after > 0:
            there = 1 + (after - s) * (slope + after / (variance + after**2) * there) / 2
        factor *= there
    return factor


@given(schedules, st.integers(1, 12), st.sampled_from(["ddim", "heun"]), between(0.01, 4.0), between(-0.5, 0.5))
def test_a_gaussian_is_followed_as_the_solver_does_on_paper(schedule, steps, method, variance, mean):
    denoiser = GaussianDenoiser(torch.full(SHAPE, mean), variance * torch.eye(4), schedule)
    start = start_state(denoiser, SharedNoise(1).initial(range(3), SHAPE))
    *_, last = sample_path(denoiser, start, Sampler(method, steps))
    levels = schedule.noise_to_signal(schedule.grid(steps)).tolist()
    variance = float(denoiser.variances[0])
    expected = mean + (start / schedule.alpha(schedule.t_max) - mean) * followed(method, variance, levels)
    assert torch.allclose(last.x_t, expected, rtol=1e-6, atol=1e-6)


@given(
    st.sampled_from(SAMPLERS.names()),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=7),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_chunks_of_indices_matter(method, indices, size, random):
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), torch.eye(4), SCHEDULES.build("flow"))
    model, noise, sampler = DiffusionModel("gaussian", denoiser), SharedNoise(3), Sampler(method, 4)
    whole = model.generate(noise, indices, sampler)
    order = random.sample(range(len(indices)), len(indices))
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    again = torch.cat([model.generate(SharedNoise(3), [indices[i] for i in part], sampler) for part in parts])
    assert torch.allclose(again, whole[order], rtol=0, atol=1e-6)


keys = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(sorted(STREAMS)), st.integers(0, 2**32)
)


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    st.sampled_from(sorted(STREAMS)),
)
def test_the_noise_of_an_image_is_its_own_whatever_is_asked_for_beside_it(seed, indices, stream):
    noise = SharedNoise(seed)
    together = noise.draw(indices, SHAPE, stream=stream)
    assert torch.equal(noise.draw(indices[::-1], SHAPE, stream=stream), together.flip(0))
    for index, drawn in zip(indices, together, strict=True):
        assert torch.equal(SharedNoise(seed).draw([index], SHAPE, stream=stream)[0], drawn)
    together.zero_()  # what a caller writes into is a copy
    assert torch.equal(noise.draw(indices, SHAPE, stream=stream), SharedNoise(seed).draw(indices, SHAPE, stream=stream))


@given(keys, keys)
def test_noise_of_other_keys_is_other_noise(one, other):
    draws = [standard_normal(seed, index, STREAMS[stream], step, 8) for seed, index, stream, step in (one, other)]
    assert np.isfinite(draws[0]).all()
    assert np.array_equal(*draws) == (one == other)


@pytest.mark.parametrize("key", range(4))
@given(keys)
def test_each_of_the_keys_counts(key, chosen):
    changed = [chosen[0], chosen[1], STREAMS[chosen[2]], chosen[3]]
    first = standard_normal(*changed, 8)
    changed[key] ^= 1
    assert not np.array_equal(standard_normal(*changed, 8), first)
