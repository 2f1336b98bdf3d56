"""One run of a race: trained once, watched on a frozen batch, evaluated on the way, and kept as rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.errors import UserError
from consistency_lab.metrics.classifier import SmallClassifier, classes_covered
from consistency_lab.metrics.quality import Moments, frechet_distance, moments
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.studies.rows import Rows
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import DenoisingBatches, build_denoiser, training_spec

EVALUATIONS = 6


@dataclass(frozen=True)
class Watch:
    """What every run of a race is measured by; made once, so that all meet the same images, times and noise.

    Args:
        images, held_out: what is trained on, and what the loss and the features are of.
        classifier: gives the features.
        schedule: of all contestants, as in their settings.
        batch: samples of the frozen batch.
        every: steps between two records of its loss.
        count: samples of an evaluation.
        sampler: that makes them.
        device: where all of it happens.
    """

    images: ImageSet
    held_out: ImageSet
    classifier: SmallClassifier
    schedule: str = "linear"
    batch: int = 512
    every: int = 25
    count: int = 1000
    sampler: Sampler = field(default_factory=lambda: Sampler("dpm++2m", 20))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.batch < 1 or self.every < 1 or self.count < 2:
            raise UserError(
                f"a race needs a frozen batch and a distance in steps of at least 1 and 2 samples or more, not {self.batch}, "
                f"{self.every}, {self.count}."
            )
        object.__setattr__(self, "frozen", frozen_batch(self.held_out, self.schedule_object, self.batch, self.device))
        object.__setattr__(self, "reference", moments(self.classifier.features(self.held_out.all())))

    frozen: FrozenBatch = field(init=False, repr=False)
    reference: Moments = field(init=False, repr=False)

    @property
    def schedule_object(self) -> Schedule:
        return SCHEDULES.build(self.schedule)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the measured numbers, beside the run."""
        return {
            "frozen": self.frozen.fingerprint,
            "held_out": self.held_out.fingerprint,
            "classifier": self.classifier.facts,
            "count": self.count,
            "sampler": vars(self.sampler),
        }

    def loss(self, denoiser: Denoiser) -> float:
        """Mean eps-loss on the frozen batch, under uniform t."""
        with measuring(), torch.no_grad():
            return float(self.frozen.losses(denoiser.eval(), denoising_loss).double().mean())

    def evaluate(self, denoiser: Denoiser) -> dict[str, Any]:
        """Loss, Frechet distance and classes covered. What is not a number is None: JSON has no NaN."""
        values: dict[str, Any] = {"loss": _number(self.loss(denoiser)), "frechet": None, "covered": 0}
        samples = DiffusionModel("contestant", denoiser).generate(SharedNoise(1), range(self.count), self.sampler)
        if samples.isfinite().all():
            values["frechet"] = _number(frechet_distance(self.reference, moments(self.classifier.features(samples))))
            covered = classes_covered(self.classifier.predict(samples), len(self.classifier.head.bias))
            values["covered"] = covered
        return values


def frozen_batch(images: ImageSet, schedule: Schedule, count: int, device: torch.device) -> FrozenBatch:
    """``count`` samples under uniform t: image i modulo the set, noise i, and the centre of a stratum of t, in a fixed random order."""
    x0 = images.batch(torch.arange(count) % len(images)).to(device)
    eps = SharedNoise(0).draw(range(count), images.shape, stream="probe", device=device)
    strata = torch.from_numpy(np.random.Generator(np.random.Philox(0)).permutation(count)).double()
    t = schedule.t_min + (strata + 0.5) / count * (schedule.t_max - schedule.t_min)
    return FrozenBatch([x0, t.to(device), eps])


def evaluation_steps(steps: int) -> list[int]:
    """At most `EVALUATIONS` steps on a log grid from a thirty-second of the run to its end."""
    return sorted({max(1, round(s)) for s in np.geomspace(steps / 32, steps, EVALUATIONS)})


def run_spec_of(watch: Watch, settings: TrainingSettings) -> dict[str, Any]:
    """The spec of a run's row."""
    spec = training_spec(watch.images, settings, watch.device)
    return {"row": "run", "run": spec, "every": watch.every, **watch.facts}


def race_run(watch: Watch, settings: TrainingSettings, rows: Rows, say: Callable[[str], None]) -> dict[str, Any]:
    """The values of one run: from the rows, or trained now. Its evaluations become rows as they are made.

    Returns:
        ``steps`` and ``loss`` of the averaged weights on the frozen batch, ``seconds_per_step`` (training alone; the lowest decile, which
        leaves out what other programs take from the machine),
        ``diverged_at`` (the step at which the training loss or the weights were no longer numbers, or None), and ``evaluations``.
    """
    spec = run_spec_of(watch, settings)
    found = rows.row(spec, lambda: _train(watch, settings, rows, spec))
    if found["diverged_at"] is not None:
        say(f"  diverged at step {found['diverged_at']}")
    evaluations = [
        (step, values)
        for step in evaluation_steps(settings.steps)
        if (values := rows.find(_evaluation_spec(rows.key(spec), step))) is not None
    ]
    return {**found, "evaluations": evaluations}


def _train(watch: Watch, settings: TrainingSettings, rows: Rows, spec: dict[str, Any]) -> dict[str, Any]:
    denoiser, averaged = (build_denoiser(spec["run"]).to(watch.device) for _ in range(2))
    source = DenoisingBatches(watch.images, settings, watch.device)
    loop = TrainingLoop(denoiser, denoising_loss, source, settings, watch.device)
    planned, run = evaluation_steps(settings.steps), rows.key(spec)
    steps: list[int] = []
    losses: list[float | None] = []
    seconds: list[float] = []
    diverged = None
    iterator, last = iter(loop), settings.steps
    for step in range(1, last + 1):
        start = time.perf_counter()
        loss = float(next(iterator).loss)  # waits for an accelerator
        seconds.append(time.perf_counter() - start)
        recorded = step % watch.every == 0 or step == last
        if not math.isfinite(loss):
            diverged = step
            break
        if not recorded and step not in planned:
            continue
        averaged.load_state_dict(loop.average.weights)
        if recorded:
            steps.append(step)
            losses.append(_number(watch.loss(averaged)))
            if losses[-1] is None:
                diverged = step
                break
        if step in planned:
            rows.row(_evaluation_spec(run, step), lambda: watch.evaluate(averaged))
    return {
        "steps": steps,
        "loss": losses,
        "seconds_per_step": float(np.quantile(seconds, 0.1)),
        "diverged_at": diverged,
    }


def _evaluation_spec(run: str, step: int) -> dict[str, Any]:
    """The spec of an evaluation's row: the key of its run's, and the step."""
    return {"row": "evaluation", "run": run, "step": step}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
