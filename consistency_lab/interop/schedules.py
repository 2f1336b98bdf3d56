"""The noise schedules of other people's models: diffusers' scheduler configurations, both ways, and bare tables.

diffusers' timestep i = 0 ... T-1 is the time t = (i + 1) / T here. Its schedulers only describe the training: sampling
is done with our own samplers, so what a scheduler says of clipping and spacing is recorded and not applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import Choice
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule, TableVP, linear_vp
from consistency_lab.errors import UserError, short, unknown_name
from consistency_lab.interop.mixing import Mixing, MixingSchedule
from consistency_lab.interop.tables import check_table

OUR_SCHEDULER = "consistency_lab.Schedule"
TIMESTEPS = 1000  # the networks here are given the index 1000 t - 1
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
# The schedulers whose betas, and the defaults of these, mean what DDPM's mean.
_READABLE = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_RECORDED = ("clip_sample", "thresholding", "timestep_spacing", "variance_type")
_AGREE = 1e-6  # in alpha-bar: the last beta of a cosine table is capped


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler's configuration says.

    Attributes:
        schedule: the noise schedule.
        predicts: the units of the network's output.
        timesteps: T; the network is given the index ``T t - 1``.
        facts: the scheduler's class, and settings that are recorded and not applied.
    """

    schedule: Schedule
    predicts: str
    timesteps: int
    facts: dict[str, Any]


def as_schedule(schedule: str | Choice | Schedule | Mixing | Sequence[float] | np.ndarray | Tensor) -> Schedule:
    """A schedule from its name, itself, a function of t that gives (alpha, sigma), or a table of alphas_cumprod ``(T,)``, whose timestep i
    is the time (i + 1) / T.

    Raises:
        UserError: an unknown name, or a table that does not fall strictly from below 1 to above 0, or is something else
            than alphas_cumprod (betas, alphas, sigmas, square roots): see `check_table`.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str | Choice):
        return SCHEDULES.build(schedule)
    if callable(schedule) and not isinstance(schedule, Tensor):
        return MixingSchedule(schedule)
    try:
        table = np.asarray(torch.as_tensor(schedule, dtype=torch.float64).cpu())
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"schedule={short(schedule)} is no schedule; give its name, or a table of alphas_cumprod."
        ) from error
    check_table(table)
    return TableVP(np.log(table))


def discrete_steps(schedule: Schedule) -> int:
    """T of a schedule that is a table, 1000 for the others."""
    return schedule.discrete_steps if isinstance(schedule, TableVP) else TIMESTEPS


def read_scheduler(config: Mapping[str, Any], where: object) -> Scheduler:
    """Schedule and prediction from the content of a ``scheduler_config.json``.

    Args:
        config: the configuration; missing settings have diffusers' defaults.
        where: the file, for messages.

    Raises:
        UserError: a scheduler that is no variance-preserving diffusion, settings that are unknown, or a terminal
            signal-to-noise ratio of zero.
    """
    kind = config.get("_class_name")
    facts = {"scheduler": kind, **{key: config[key] for key in _RECORDED if key in config}}
    if kind == OUR_SCHEDULER:
        predicts = str(PREDICTIONS.resolve(str(config.get("prediction_type"))))
        return Scheduler(_recorded_schedule(config), predicts, TIMESTEPS, facts)
    if kind not in _READABLE or config.get("use_flow_sigmas"):
        raise UserError(
            f"{where} describes a {kind or 'scheduler without a class'}, whose schedule cannot be read (these can: "
            f"{', '.join(_READABLE)}); wrap the network with wrap_module and name its schedule."
        )
    if config.get("rescale_betas_zero_snr"):
        raise UserError(
            f"{where} rescales its betas to a terminal signal-to-noise ratio of zero: at the last timestep the state "
            "holds no signal and eps does not tell x0; such a model cannot be sampled here."
        )
    default = "epsilon" if config.get("predict_epsilon", True) else "sample"  # predict_epsilon: before diffusers 0.9
    prediction = config.get("prediction_type") or default
    if prediction not in _PREDICTIONS:
        raise unknown_name(f"prediction_type in {where}", str(prediction), _PREDICTIONS)
    table = _schedule_of_betas(config, where)
    return Scheduler(_recorded_schedule(config, table), _PREDICTIONS[prediction], discrete_steps(table), facts)


def _schedule_of_betas(config: Mapping[str, Any], where: object) -> TableVP:
    steps, kind = config.get("num_train_timesteps", TIMESTEPS), config.get("beta_schedule", "linear")
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    numbers = isinstance(steps, int) and isinstance(start, int | float) and isinstance(end, int | float)
    if not (numbers and steps > 1 and 0 < start < 1 and 0 < end < 1):
        given = f"num_train_timesteps={steps!r}, beta_start={start!r}, beta_end={end!r}"
        raise UserError(f"{where} has {given}, which make no schedule; mend it.")
    if config.get("trained_betas") is not None:
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
        if betas.ndim != 1 or not ((betas > 0) & (betas < 1)).all():
            raise UserError(f"{where} has trained_betas that are not all between 0 and 1; mend it.")
        return TableVP(np.cumsum(np.log1p(-betas)))
    if kind == "linear":
        return linear_vp(beta_start=float(start), beta_end=float(end), steps=steps)
    given = f"beta_end={float(end)!r}, beta_start={float(start)!r}, "
    if kind == "scaled_linear":
        betas = np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    elif kind == "sigmoid":
        betas = start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, steps)))
    elif kind == "squaredcos_cap_v2":
        level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * (math.pi / 2)) ** 2
        betas, given = np.minimum(1 - level[1:] / level[:-1], 0.999), ""
    else:
        known = ("linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2")
        raise unknown_name(f"beta_schedule in {where}", str(kind), known)
    return TableVP(np.cumsum(np.log1p(-betas)), spec=f"{kind}({given}steps={steps})")


def _recorded_schedule(config: Mapping[str, Any], table: TableVP | None = None) -> Schedule:
    """The schedule that an export recorded; ``table``, what the betas say, without a record or where they differ."""
    record = config.get("_schedule")
    if record is None:
        if table is None:
            raise UserError("the scheduler's configuration does not name its schedule; export the model again.")
        return table
    known = "log_alpha_bar" not in record
    schedule = SCHEDULES.build(record["spec"]) if known else TableVP(record["log_alpha_bar"], spec=record["spec"])
    if table is None:
        return schedule
    times = torch.arange(1, table.discrete_steps + 1, dtype=torch.float64) / table.discrete_steps
    agree = bool(((schedule.alpha(times) ** 2 - table.alpha(times) ** 2).abs() < _AGREE).all())
    return schedule if agree else table


def write_scheduler(schedule: Schedule, predicts: str) -> tuple[dict[str, Any], str]:
    """The content of a ``scheduler_config.json`` for a model of ours: a DDIMScheduler where that can say the same.

    Returns:
        the configuration, and a sentence: whether diffusers can sample with it.
    """
    record: dict[str, Any] = {"spec": schedule.spec}
    times = torch.arange(1, discrete_steps(schedule) + 1, dtype=torch.float64) / discrete_steps(schedule)
    if schedule.spec.partition("(")[0] not in SCHEDULES.names():
        record["log_alpha_bar"] = (2 * torch.log(schedule.alpha(times))).tolist()
    prediction = next((theirs for theirs, ours in _PREDICTIONS.items() if ours == predicts), None)
    preserving = bool((schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2 - 1).abs().max() < _AGREE)
    if prediction is None or not preserving:
        ours = {"_class_name": OUR_SCHEDULER, "_schedule": record, "prediction_type": predicts}
        what = f"the schedule {schedule.spec!r} with prediction {predicts!r}"
        return ours, f"diffusers has no scheduler for {what}: only consistency_lab samples it."
    config = {
        "_class_name": "DDIMScheduler",
        "_schedule": record,
        "num_train_timesteps": TIMESTEPS,
        "prediction_type": prediction,
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing",
        **_betas(schedule),
    }
    return config, "DDIMScheduler samples it as we do, where the number of steps divides 1000."


def _betas(schedule: Schedule) -> dict[str, Any]:
    if schedule.spec.startswith("linear(") and discrete_steps(schedule) == TIMESTEPS:
        options = Choice.parse(schedule.spec).options
        return {"beta_schedule": "linear", "beta_start": options["beta_start"], "beta_end": options["beta_end"]}
    # Whatever steps the schedule has, the network's index is 1000 t - 1: the table is read at those 1000 times.
    level = schedule.alpha(torch.arange(TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS) ** 2
    return {"trained_betas": (1 - level[1:] / level[:-1]).clamp_max(0.999).tolist()}
