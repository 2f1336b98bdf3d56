"""Timestep samplers by name."""

from __future__ import annotations

from consistency_lab.choices import Registry
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

TIMESTEPS: Registry[TimestepSampler] = Registry(
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
