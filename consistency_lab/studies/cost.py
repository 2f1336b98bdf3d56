"""What a fleet would cost, measured on a few steps before it is started."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.store.runs import Store
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import KIND, DenoisingBatches, build_denoiser, training_spec

_WARM, _TIMED = 2, 5


def seconds_per_step(images: ImageSet, settings: TrainingSettings, device: torch.device) -> float:
    """Median time of a training step on this machine, from `_TIMED` steps of an untrained network after `_WARM` that do not count."""
    denoiser = build_denoiser(training_spec(images, settings, device)).to(device)
    loop = TrainingLoop(denoiser, denoising_loss, DenoisingBatches(images, settings, device), settings, device)
    taken = []
    for step in loop:
        float(step.loss)  # waits for an accelerator
        taken.append(time.perf_counter())
        if step.step == _WARM + _TIMED:
            break
    return sorted(b - a for a, b in zip(taken[_WARM - 1 : -1], taken[_WARM:], strict=True))[_TIMED // 2]


def fleet_cost(
    images: ImageSet, jobs: Mapping[str, TrainingSettings], store: Store, device: torch.device
) -> dict[str, float]:
    """Seconds of training that each job would still take: 0 for what the store has. Jobs that differ in seed alone are timed once."""
    timed: dict[TrainingSettings, float] = {}
    cost = {}
    for name, settings in jobs.items():
        if store.run(KIND, name, training_spec(images, settings, device)).done:
            cost[name] = 0.0
            continue
        alike = settings.replace(seed=0, init_seed=None, order_seed=None, noise_seed=None)
        if alike not in timed:
            timed[alike] = seconds_per_step(images, alike, device)
        cost[name] = timed[alike] * settings.steps
    return cost
