"""One run of a race: trained once, watched on a frozen batch, evaluated on the way, and stored as rows."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from consistency_lab.data.imageset import ImageSet, check_set
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
from consistency_lab.paper.rows import Rows
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.progress import told
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps.base import effective_share, total_variation
from consistency_lab.training.train import DIFFUSION_KIND, build_denoiser, training_spec

EVALUATIONS = 6


@dataclass(frozen=True)
class Watch:
    """What every run of a race is measured by; made once, so that all see the same images, times and noise.

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
        for part in (self.images, self.held_out):
            check_set(part)
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
        """What decides the measured numbers, besides the run."""
        return {
            "frozen": self.frozen.fingerprint,
            "held_out": self.held_out.fingerprint,
            "classifier": self.classifier.facts,
            "count": self.count,
            "sampler": self.sampler.facts,
        }

    def on(self, device: str | torch.device) -> Watch:
        """The same measures taken on another device."""
        moved, place = copy(self), torch.device(device)
        object.__setattr__(moved, "device", place)
        object.__setattr__(moved, "frozen", FrozenBatch([part.to(place) for part in self.frozen.tensors]))
        return moved

    def loss(self, denoiser: Denoiser) -> float:
        """Mean eps-loss on the frozen batch, under uniform t."""
        with measuring(), torch.no_grad():
            return float(self.frozen.losses(denoiser.eval(), denoising_loss).double().mean())

    def evaluate(self, denoiser: Denoiser, sampled: bool = True) -> dict[str, Any]:
        """Loss and, of samples, Frechet distance and classes covered. What is not a number or was not sampled is None: JSON has no NaN."""
        values: dict[str, Any] = {"loss": _number(self.loss(denoiser)), "frechet": None, "covered": None}
        if not sampled:
            return values
        samples = DiffusionModel("contestant", denoiser).generate(SharedNoise(1), range(self.count), self.sampler)
        if samples.isfinite().all():
            values["frechet"] = _number(frechet_distance(self.reference, moments(self.classifier.features(samples))))
            covered = classes_covered(self.classifier.predict(samples), len(self.classifier.head.bias))
            values["covered"] = covered
        return values


class RaceRun(NamedTuple):
    """One run that a race needs. ``followed``: samples are made at every evaluation, not at the last alone."""

    name: str
    settings: TrainingSettings
    followed: bool = False

    @property
    def label(self) -> str:
        """The name of its job."""
        return f"{self.name}, seed {self.settings.seed}"


def frozen_batch(images: ImageSet, schedule: Schedule, count: int, device: torch.device) -> FrozenBatch:
    """``count`` samples under uniform t: image i modulo the set, noise i, and the centre of a stratum of t, in a fixed random order."""
    x0 = images.batch(np.arange(count) % len(images)).to(device)
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


def recorded(watch: Watch, run: RaceRun, rows: Rows) -> dict[str, Any] | None:
    """The values of a run with its ``evaluations``, (step, values) in order; None where the rows lack any of it."""
    spec = run_spec_of(watch, run.settings)
    found = rows.find(spec)
    if found is None:
        return None
    wanted = [step for step in evaluation_steps(run.settings.steps) if step < (found["diverged_at"] or math.inf)]
    evaluations = [(step, rows.find(_evaluation_spec(rows.key(spec), step, _sampled(run, step)))) for step in wanted]
    return None if any(values is None for _, values in evaluations) else {**found, "evaluations": evaluations}


def keep(watch: Watch, run: RaceRun, rows: Rows, found: dict[str, Any]) -> None:
    """Write what `train_watched` found: a row for the run and one for each evaluation."""
    spec = run_spec_of(watch, run.settings)
    own = {key: value for key, value in found.items() if key != "evaluations"}
    for step, values in found["evaluations"]:
        rows.row(_evaluation_spec(rows.key(spec), step, _sampled(run, step)), partial(dict, values))
    rows.row(spec, lambda: own)


def train_watched(watch: Watch, run: RaceRun) -> dict[str, Any]:
    """Train one run.

    Returns:
        ``steps`` and ``loss`` of the averaged weights on the frozen batch; ``diverged_at``, the step at which training loss or weights
        were no longer numbers, or None; of the density that times were drawn from, as it was at the recorded steps, ``total_variation`` of
        its mean from uniform and ``effective_share``, the mean share of a batch that is left once it is weighted back to uniform;
        ``evaluations``.
    """
    settings, spec = run.settings, training_spec(watch.images, run.settings, watch.device)
    denoiser, averaged = (build_denoiser(spec).to(watch.device) for _ in range(2))
    loop = DIFFUSION_KIND.loop(denoiser, watch.images, settings, watch.device)
    source = loop.source
    assert isinstance(source, DenoisingBatches)
    planned, steps, densities = evaluation_steps(settings.steps), list[int](), [source.sampler.checked_masses(0)]
    losses: list[float | None] = []
    evaluations: list[tuple[int, dict[str, Any]]] = []
    diverged = None
    iterator, last = iter(loop), settings.steps
    told(run.label, 0, last)
    for step in range(1, last + 1):
        loss = float(next(iterator).loss)
        if not math.isfinite(loss):
            diverged = step
            break
        is_record = step % watch.every == 0 or step == last
        if not is_record and step not in planned:
            continue
        averaged.load_state_dict(loop.average.weights)
        if is_record:
            steps.append(step)
            losses.append(_number(watch.loss(averaged)))
            told(run.label, step, last, losses[-1])
            densities.append(source.sampler.checked_masses(step))
            if losses[-1] is None:
                diverged = step
                break
        if step in planned:
            evaluations.append((step, watch.evaluate(averaged, _sampled(run, step))))
    mean = np.mean(densities, axis=0)
    return {
        "steps": steps,
        "loss": losses,
        "diverged_at": diverged,
        "total_variation": total_variation(mean, np.full(len(mean), 1 / len(mean))),
        "effective_share": float(np.mean([effective_share(each) for each in densities])),
        "evaluations": evaluations,
    }


def _sampled(run: RaceRun, step: int) -> bool:
    return run.followed or step == run.settings.steps


def _evaluation_spec(run: str, step: int, sampled: bool) -> dict[str, Any]:
    """The spec of an evaluation's row: the key of its run's, the step, and whether samples were made."""
    return {"row": "evaluation", "run": run, "step": step, "sampled": sampled}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
