"""What a fleet would cost, measured on a few steps before it is started."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import CHUNK, DiffusionModel, GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.model_kinds import kind_of
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import fleet_runs
from consistency_lab.training.run_io import Loop
from consistency_lab.training.settings import LoopSettings

_FIRST = 2  # steps that are not timed: they warm up
_LEAST, _LONG_ENOUGH = 5, 0.25  # steps and seconds that are looked at, both at least


def loop_unkept(images: ImageSet, settings: LoopSettings, device: torch.device) -> Loop:
    """The beginning of a run that is not kept: its model is built, and no step is taken."""
    kind = kind_of(settings)
    module = kind.build(kind.spec(images, settings, device)).to(device)
    return kind.loop(module, images, settings, device)


def losses_unkept(images: ImageSet, settings: LoopSettings, device: torch.device) -> Iterator[float]:
    """The losses of a run that is not kept, step by step, for as long as one is asked for: to be told one, an accelerator is waited for."""
    for step in loop_unkept(images, settings.replace(steps=max(settings.steps, 10_000), snapshots=0), device):
        yield float(step.loss)


def seconds_per_step(images: ImageSet, settings: LoopSettings, device: torch.device) -> float:
    """Time of a training step on this machine as it is now: the median of the first steps of a run that is not kept."""
    taken, began = [], time.perf_counter()
    for _ in losses_unkept(images, settings, device):
        now = time.perf_counter()
        taken.append(now - began)
        began = now
        if len(timed := taken[_FIRST:]) >= _LEAST and sum(timed) >= _LONG_ENOUGH:
            break
    return float(np.median(timed))


def seconds_per_image(images: ImageSet, settings: LoopSettings, device: torch.device) -> float:
    """Time of one evaluation of the network for one image, by an untrained model."""
    return seconds_of_model(
        kind_of(settings).train(images, settings=settings.replace(steps=1), device=device, progress=False)
    )


def seconds_of_model(model: GenerativeModel) -> float:
    """Time of one evaluation of a model's network for one image, from one chunk of images made in one step."""
    began = time.perf_counter()
    if isinstance(model, DiffusionModel):
        model.generate(SharedNoise(0), range(CHUNK), Sampler(steps=1))
    else:
        model.generate(SharedNoise(0), range(CHUNK))
    return (time.perf_counter() - began) / CHUNK


def fleet_cost(
    images: ImageSet,
    jobs: Mapping[str, LoopSettings],
    store: Store,
    device: torch.device,
    evaluations: Mapping[str, int] | None = None,
) -> dict[str, tuple[float, float]]:
    """Seconds of training and of evaluation that each job would still take. Jobs that differ in seed alone are timed once.

    Args:
        evaluations: network evaluations that the study asks of each job's model, images times steps; none by default.

    Returns:
        name -> (training, evaluation); training is 0 for what the store has.
    """
    steps: dict[LoopSettings, float] = {}
    looks: dict[LoopSettings, float] = {}
    cost = {}
    for name, run in fleet_runs(images, jobs, store, device).items():
        alike = jobs[name].replace(seed=0, init_seed=None, order_seed=None, noise_seed=None, snapshots=0)
        asked = (evaluations or {}).get(name, 0)
        if not run.done and alike not in steps:
            steps[alike] = seconds_per_step(images, alike, device)
        if asked and alike not in looks:
            looks[alike] = seconds_per_image(images, alike, device)
        training = 0.0 if run.done else steps[alike] * jobs[name].steps
        cost[name] = (training, looks[alike] * asked if asked else 0.0)
    return cost
