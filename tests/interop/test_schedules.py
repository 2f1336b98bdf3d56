import numpy as np
import pytest
import torch

from consistency_lab.diffusion.schedule import EDM, CosineVP, RectifiedFlow, linear_vp
from consistency_lab.errors import UserError
from consistency_lab.interop.schedules import _READABLE, as_schedule, read_scheduler, write_scheduler

diffusers = pytest.importorskip("diffusers")


def alphas_cumprod(schedule, steps):
    return schedule.alpha(torch.arange(1, steps + 1, dtype=torch.float64) / steps) ** 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "linear", "beta_start": 0.0005, "beta_end": 0.03, "num_train_timesteps": 250},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": np.linspace(1e-3, 0.1, 100).tolist(), "num_train_timesteps": 100},
    ],
)
def test_the_betas_of_every_kind_are_those_of_diffusers(options):
    theirs = diffusers.DDPMScheduler(**options)
    ours = read_scheduler({"_class_name": "DDPMScheduler", **theirs.config}, "test")
    assert ours.timesteps == theirs.config.num_train_timesteps
    torch.testing.assert_close(
        alphas_cumprod(ours.schedule, ours.timesteps), theirs.alphas_cumprod.double(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", _READABLE)
def test_the_defaults_of_every_readable_scheduler_are_known(kind):
    theirs = getattr(diffusers, kind)()
    ours = read_scheduler({"_class_name": kind}, "test")
    assert ours.predicts == "eps"
    torch.testing.assert_close(alphas_cumprod(ours.schedule, 1000), theirs.alphas_cumprod.double(), rtol=0, atol=1e-6)


def test_a_linear_scheduler_is_the_schedule_that_models_are_trained_with_here():
    assert read_scheduler({"_class_name": "DDPMScheduler"}, "test").schedule == linear_vp()


def test_predictions_and_what_is_recorded_without_being_applied():
    read = read_scheduler(
        {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "clip_sample": True}, "test"
    )
    assert (read.predicts, read.facts) == ("v", {"scheduler": "DDIMScheduler", "clip_sample": True})
    assert read_scheduler({"_class_name": "DDPMScheduler", "predict_epsilon": False}, "test").predicts == "x0"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({}, "scheduler without a class"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "cannot be read"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "holds no signal"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "prediction_type"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos"}, "Did you mean 'squaredcos_cap_v2'"),
        ({"_class_name": "DDIMScheduler", "beta_start": 2}, "make no schedule"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": None}, "make no schedule"),
        ({"_class_name": "DDIMScheduler", "trained_betas": [0.1, 1.5]}, "trained_betas"),
        ({"_class_name": "consistency_lab.Schedule", "prediction_type": "flow"}, "does not name its schedule"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(config, said):
    with pytest.raises(UserError, match=said):
        read_scheduler(config, "scheduler_config.json")


@pytest.mark.parametrize(
    ("schedule", "predicts", "theirs"),
    [
        (linear_vp(), "eps", True),
        (linear_vp(beta_end=0.05), "v", True),
        (linear_vp(steps=250), "x0", True),
        (CosineVP(), "v", True),
        (as_schedule(np.linspace(0.999, 0.01, 50)), "eps", True),
        (linear_vp(), "flow", False),
        (RectifiedFlow(), "flow", False),
        (EDM(sigma_max=40.0), "edm(sigma_data=0.5)", False),
    ],
)
def test_a_written_scheduler_is_read_back_as_the_same_schedule(schedule, predicts, theirs):
    config, remark = write_scheduler(schedule, predicts)
    read = read_scheduler(config, "test")
    assert (read.schedule, read.predicts, read.timesteps) == (schedule, predicts, 1000)
    assert ("no scheduler" in remark) is not theirs
    times = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(read.schedule.alpha(times), schedule.alpha(times), rtol=1e-12, atol=0)
    if theirs:
        scheduler = diffusers.DDIMScheduler.from_config(config)
        torch.testing.assert_close(scheduler.alphas_cumprod.double(), alphas_cumprod(schedule, 1000), rtol=0, atol=2e-6)


def test_betas_that_were_changed_after_an_export_overtake_its_record():
    config, _ = write_scheduler(linear_vp(), "eps")
    assert read_scheduler({**config, "beta_end": 0.03}, "test").schedule == linear_vp(beta_end=0.03)


def test_a_table_is_a_schedule():
    table = diffusers.DDPMScheduler().alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(as_schedule(table), 1000), table.double(), rtol=1e-9, atol=0)
    for bad in ([0.9, -0.1], [[0.9, 0.5]], [0.5, 0.9], [float("nan"), 0.1]):
        with pytest.raises(UserError):
            as_schedule(bad)


@pytest.mark.parametrize("schedule", [{"a": 1}, b"a", [[1], [2, 3]], None])
def test_what_is_no_schedule_is_one_sentence(schedule):
    with pytest.raises(UserError, match=r"is no schedule; give its name, or a table"):
        as_schedule(schedule)
