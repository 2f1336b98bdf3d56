"""What a fleet would cost, measured on a few steps before it is started."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import CHUNK, DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.loading import Model, kind_of
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import fleet_runs
from consistency_lab.training.settings import LoopSettings

_FEW = 2  # steps of the short runs: what a run costs before its first step drops out of the difference to longer ones
_MORE, _MOST = 5, 5 * 2**9  # steps that the longer runs have more, first and at most
_PAIRS = 3  # runs of either length whose fastest counts: other programs only ever add to a time
_ENOUGH = 0.25  # seconds by which the longer runs must be longer; the difference of two hardly different times is noise


def seconds_per_step(images: ImageSet, settings: LoopSettings, device: torch.device) -> float:
    """Time of a training step on this machine, from short and longer runs in turn that keep nothing.

    It is the difference between the fastest of either length. Runs get longer until that is a good part of a second and twice a whole
    short run, whatever that spends before its first step: then what other programs take can neither make it vanish nor be taken for it.
    """
    short, more = math.inf, _MORE
    while True:
        long = math.inf
        for _ in range(_PAIRS):
            short = min(short, _timed(images, settings, device, _FEW)[0])
            long = min(long, _timed(images, settings, device, _FEW + more)[0])
            if long - short < max(_ENOUGH, 2 * short) and more < _MOST:
                break
        else:
            return max(0.0, long - short) / more
        more *= 2


def seconds_per_image(images: ImageSet, settings: LoopSettings, device: torch.device) -> float:
    """Time of one evaluation of the network for one image, from one chunk of images made in one step by an untrained model."""
    model = _timed(images, settings, device, 1)[1]
    began = time.perf_counter()
    if isinstance(model, DiffusionModel):
        model.generate(SharedNoise(0), range(CHUNK), Sampler(steps=1))
    else:
        model.generate(SharedNoise(0), range(CHUNK))
    return (time.perf_counter() - began) / CHUNK


def _timed(images: ImageSet, settings: LoopSettings, device: torch.device, steps: int) -> tuple[float, Model]:
    began = time.perf_counter()
    model = kind_of(settings).train(images, settings=settings.replace(steps=steps), device=device, progress=False)
    return time.perf_counter() - began, model


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
