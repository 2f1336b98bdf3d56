"""Schedules that are functions: equal to those of the package that they describe."""

import pytest
import torch

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.interop.mixing import MixingSchedule
from consistency_lab.interop.schedules import as_schedule

TIMES = torch.linspace(0.001, 0.999, 37, dtype=torch.float64)


@pytest.mark.parametrize("name", ["flow", "cosine", "edm", "linear"])
def test_a_function_is_the_schedule_that_it_describes(name):
    own = SCHEDULES.build(name)
    mixing = MixingSchedule(lambda t: (own.alpha(t), own.sigma(t)), t_min=max(own.t_min, 1e-3), t_max=own.t_max)
    times = TIMES.clamp(mixing.t_min, mixing.t_max)
    assert torch.equal(mixing.alpha(times), own.alpha(times))
    assert torch.equal(mixing.sigma(times), own.sigma(times))
    levels = own.log_snr(times)
    torch.testing.assert_close(mixing.time_from_log_snr(levels), own.time_from_log_snr(levels), atol=1e-9, rtol=0)


def test_data_has_no_noise_and_equal_functions_are_equal():
    def azula(t):  # leaves a thousandth at t = 0
        return 1 - 0.999 * t, t + (1 - t) * 1e-3

    schedule = as_schedule(azula)
    assert float(schedule.sigma(0.0)) == 0.0
    assert float(schedule.sigma(1e-3)) == pytest.approx(1e-3 + 0.999e-3)
    assert schedule == as_schedule(lambda t: azula(t))
    assert schedule != as_schedule(lambda t: (torch.ones_like(t), 10 * t))
    assert torch.equal(schedule.grid(4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("mixing", "said"),
    [
        (lambda t: (t, 1 - t), "counts time from noise to data"),
        (lambda t: (torch.ones_like(t), torch.ones_like(t)), "must fall"),
        (lambda t: t, "returns alpha and sigma"),
    ],
)
def test_what_is_no_schedule(mixing, said):
    with pytest.raises(UserError, match=said):
        as_schedule(mixing)
