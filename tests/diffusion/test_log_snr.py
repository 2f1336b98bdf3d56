from itertools import combinations

import pytest
import torch

from consistency_lab.diffusion.log_snr import align_pair, kept_points
from consistency_lab.diffusion.schedule import EDM, SCHEDULES, linear_vp
from consistency_lab.errors import UserError

NAMES = ("linear", "cosine", "edm", "flow")


@pytest.mark.parametrize("name", NAMES)
def test_equal_schedules_keep_their_own_grid_to_the_bit(name):
    schedule = SCHEDULES.build(name)
    alignment = align_pair(schedule, SCHEDULES.build(name), 25)
    for times in (alignment.first, alignment.second, alignment.t):
        assert torch.equal(times, schedule.grid(25))
    assert torch.equal(alignment.log_snr[:-1], schedule.log_snr(schedule.grid(25)[:-1]))
    assert alignment.log_snr[-1] == torch.inf


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_pair_meets_at_equal_noise_whoever_is_named_first(one, other, steps):
    a, b = SCHEDULES.build(one), SCHEDULES.build(other)
    alignment, turned = align_pair(a, b, steps), align_pair(b, a, steps)
    assert torch.equal(alignment.first, turned.second)
    assert torch.equal(alignment.second, turned.first)
    assert torch.equal(alignment.t, turned.t)
    assert torch.equal(alignment.log_snr, turned.log_snr)
    for schedule, times in ((a, alignment.first), (b, alignment.second)):
        assert len(times) == steps + 1
        assert times[-1] == 0
        assert (times.diff() < 0).all()
        assert torch.allclose(schedule.log_snr(times[:-1]), alignment.log_snr[:-1], atol=1e-9)
    assert alignment.log_snr[0] == max(a.log_snr_range[0], b.log_snr_range[0])
    if steps > 1:
        assert float(alignment.log_snr[-2]) == pytest.approx(min(a.log_snr_range[1], b.log_snr_range[1]), abs=1e-9)


def test_the_alignment_takes_equal_steps_of_the_mean_time():
    alignment = align_pair(SCHEDULES.build("linear"), SCHEDULES.build("flow"), 40)
    assert torch.allclose(alignment.t, (alignment.first + alignment.second) / 2, atol=1e-12)
    steps = alignment.t[:-1].diff()
    assert torch.allclose(steps, steps[0].expand_as(steps), atol=1e-12)


def test_nearly_equal_schedules_have_nearly_their_own_grid():
    a, b = linear_vp(), linear_vp(beta_end=0.0200001)
    alignment = align_pair(a, b, 20)
    own = torch.cat([torch.linspace(a.t_max, a.t_min, 20, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    assert torch.allclose(alignment.first, own, atol=1e-5)


def test_schedules_that_share_no_noise_level_are_refused():
    with pytest.raises(UserError, match="share no noise level"):
        align_pair(EDM(sigma_min=0.002, sigma_max=0.004), EDM(sigma_min=10.0, sigma_max=80.0), 10)
    with pytest.raises(UserError, match="at least 1 step"):
        align_pair(SCHEDULES.build("linear"), SCHEDULES.build("edm"), 0)


def test_kept_points_have_both_ends():
    assert kept_points(50, 3).tolist() == [0, 25, 50]
    assert kept_points(2, 14).tolist() == [0, 1, 2]
