from itertools import combinations

import pytest
import torch

from consistency_lab.diffusion.clocks import kept_points, pair_clock
from consistency_lab.diffusion.schedule import EDM, SCHEDULES, linear_vp
from consistency_lab.errors import UserError

NAMES = ("linear", "cosine", "edm", "flow")


@pytest.mark.parametrize("name", NAMES)
def test_equal_schedules_keep_their_own_grid_to_the_bit(name):
    schedule = SCHEDULES.build(name)
    clock = pair_clock(schedule, SCHEDULES.build(name), 25)
    for times in (clock.first, clock.second, clock.t):
        assert torch.equal(times, schedule.grid(25))
    assert torch.equal(clock.log_snr[:-1], schedule.log_snr(schedule.grid(25)[:-1]))
    assert clock.log_snr[-1] == torch.inf


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_pair_meets_at_equal_noise_whoever_is_named_first(one, other, steps):
    a, b = SCHEDULES.build(one), SCHEDULES.build(other)
    clock, turned = pair_clock(a, b, steps), pair_clock(b, a, steps)
    assert torch.equal(clock.first, turned.second)
    assert torch.equal(clock.second, turned.first)
    assert torch.equal(clock.t, turned.t)
    assert torch.equal(clock.log_snr, turned.log_snr)
    for schedule, times in ((a, clock.first), (b, clock.second)):
        assert len(times) == steps + 1
        assert times[-1] == 0
        assert (times.diff() < 0).all()
        assert torch.allclose(schedule.log_snr(times[:-1]), clock.log_snr[:-1], atol=1e-9)
    assert clock.log_snr[0] == max(a.log_snr_range[0], b.log_snr_range[0])
    if steps > 1:
        assert float(clock.log_snr[-2]) == pytest.approx(min(a.log_snr_range[1], b.log_snr_range[1]), abs=1e-9)


def test_the_clock_takes_equal_steps_of_the_mean_time():
    clock = pair_clock(SCHEDULES.build("linear"), SCHEDULES.build("flow"), 40)
    assert torch.allclose(clock.t, (clock.first + clock.second) / 2, atol=1e-12)
    steps = clock.t[:-1].diff()
    assert torch.allclose(steps, steps[0].expand_as(steps), atol=1e-12)


def test_nearly_equal_schedules_have_nearly_their_own_grid():
    a, b = linear_vp(), linear_vp(beta_end=0.0200001)
    clock = pair_clock(a, b, 20)
    own = torch.cat([torch.linspace(a.t_max, a.t_min, 20, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    assert torch.allclose(clock.first, own, atol=1e-5)


def test_schedules_that_share_no_noise_level_are_refused():
    with pytest.raises(UserError, match="share no noise level"):
        pair_clock(EDM(sigma_min=0.002, sigma_max=0.004), EDM(sigma_min=10.0, sigma_max=80.0), 10)
    with pytest.raises(UserError, match="at least 1 step"):
        pair_clock(SCHEDULES.build("linear"), SCHEDULES.build("edm"), 0)


def test_kept_points_have_both_ends():
    assert kept_points(50, 3).tolist() == [0, 25, 50]
    assert kept_points(2, 14).tolist() == [0, 1, 2]
