"""Which times are trained, and how often. A sampler is a density over t that may change with the step or with the losses.

>>> sampler = TIMESTEPS.build("clts(center=0.3, width=0.2)", SCHEDULES.build("linear"), 1000)
>>> t, weight = sampler.sample(128, 0, torch.Generator().manual_seed(0))
"""

from consistency_lab.training.timesteps.audit import audit_timesteps
from consistency_lab.training.timesteps.base import BINS, TimestepSampler, effective_share, noise_rate, total_variation
from consistency_lab.training.timesteps.registry import TIMESTEPS

__all__ = [
    "BINS",
    "TIMESTEPS",
    "TimestepSampler",
    "audit_timesteps",
    "effective_share",
    "noise_rate",
    "total_variation",
]
