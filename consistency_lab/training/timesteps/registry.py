"""Timestep samplers by name."""

from __future__ import annotations

from typing import Any

from consistency_lab.choices import Choice, Registry
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps.adaptive import ClusterCurriculum, LossRoot, LossSecondMoment
from consistency_lab.training.timesteps.base import TimestepSampler
from consistency_lab.training.timesteps.curriculum import CLTS
from consistency_lab.training.timesteps.fixed import (
    Beta,
    Density,
    EDMLogNormal,
    LogitNormal,
    StratifiedUniform,
    Uniform,
)
from consistency_lab.training.timesteps.speed import SpeeD


class _Samplers(Registry[TimestepSampler]):
    """Checks what it builds: a timestep sampler whose masses at the first step are a density."""

    def build(self, text: str | Choice, *args: Any) -> TimestepSampler:
        sampler = super().build(text, *args)
        if not isinstance(sampler, TimestepSampler):
            raise UserError(
                f"the timestep sampler {text!r} is a {type(sampler).__name__}; subclass TimestepSampler, which draws from its masses."
            )
        sampler.checked_masses(0)
        return sampler


TIMESTEPS = _Samplers(
    "timestep sampler",
    {
        "uniform": Uniform,
        "stratified": StratifiedUniform,
        "clts": CLTS,
        "density": Density,
        "speed": SpeeD,
        "beta": Beta,
        "logit_normal": LogitNormal,
        "edm_lognormal": EDMLogNormal,
        "loss_second_moment": LossSecondMoment,
        "loss_root": LossRoot,
        "clusters": ClusterCurriculum,
    },
)
