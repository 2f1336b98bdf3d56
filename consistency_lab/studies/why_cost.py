"""What the probes of `Why` would still cost: each kind of work is timed once on an untrained model, and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from consistency_lab.devices import measuring
from consistency_lab.diffusion.clocks import kept_points
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.loading import Model, kind_of
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.frozen import untouched
from consistency_lab.probes.lanczos import gaussian
from consistency_lab.probes.operators import OPERATORS, CurvatureOperator
from consistency_lab.probes.smoothness import OFFSETS
from consistency_lab.probes.subject import Subject
from consistency_lab.probes.walk import mean_gradients
from consistency_lab.studies.cost import fleet_cost, seconds_per_step
from consistency_lab.studies.fleet import Fleet
from consistency_lab.studies.why import CONNECTIVITY, CURVATURE, DIFFICULTY, LINE, STRUCTURE, Why
from consistency_lab.training.kept import snapshot_steps
from consistency_lab.training.settings import LoopSettings


def why_cost(why: Why, fleet: Fleet, members: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Seconds of training that each model would still take, and of evaluation each probe of each family.

    What neither the rows nor the store answer is counted, and the training of a family of which anything is. A spectrum may end sooner
    than is counted.

    Args:
        why: the study.
        fleet: its models.
        members: family -> names of its models.

    Returns:
        name of a model, or "probe of family" -> (training, evaluation).
    """
    families = [fleet.family(name, names) for name, names in members.items()]
    missing = list(why.missing(families))
    wanted = dict.fromkeys(family.name for _, family, _ in missing)
    cost = dict.fromkeys(fleet.jobs, (0.0, 0.0))
    cost |= {f"{probe} of {family.name}": (0.0, 0.0) for probe, family, _ in why.asked(families)}
    training = {name: fleet.jobs[name] for family in wanted for name in members[family]}
    cost |= fleet_cost(fleet.images, training, fleet.store, fleet.device)
    prices: dict[str, _Prices] = {}
    for probe, family, player in missing:
        if family.name not in prices:
            prices[family.name] = _Prices(why, fleet.jobs[members[family.name][0]], fleet.device)
        name = f"{probe} of {family.name}"
        cost[name] = (0.0, cost[name][1] + getattr(prices[family.name], probe)(player))  # both players of a GAN
    return cost


class _Prices:
    """Seconds of each probe for models of those settings."""

    def __init__(self, why: Why, settings: LoopSettings, device: torch.device):
        self.why, self.settings, self.device = why, settings, device
        fresh = settings.replace(steps=1, snapshots=0)
        self.model: Model = kind_of(settings).train(why.images, settings=fresh, device=device, progress=False)

    def line(self, player: str | None) -> float:
        subject = self.why.subject(self.model, player)
        return LINE["points"] * _seconds(subject.losses) + (1 + len(OFFSETS)) * _seconds(partial(_gradients, subject))

    between = line

    def curvature(self, player: str | None) -> float:
        whole = self.why.bent(self.model, player)
        parts = [(1, whole), *([(whole.levels, whole.at([0]))] if whole.levels > 1 else [])]  # all levels cost alike
        products = (4 + CURVATURE["probes"]) * CURVATURE["steps"] + CURVATURE["products"]
        return sum(
            products * many * _seconds(partial(_product, operator(part, scaled=True)))
            for operator in OPERATORS.values()
            for many, part in parts
        )

    def difficulty(self, player: None) -> float:
        """One noise level costs as much as another."""
        options = {"count": self.why.looked_at, "training_images": self.why.images, **DIFFICULTY, "bins": 1}
        level = _seconds(partial(probe_difficulty, self._diffusion, self.why.held_out, **options), times=1)
        subject = self.why.subject(self.model, None)
        again = len(snapshot_steps(self.settings)) * DIFFICULTY["bins"] * min(DIFFICULTY["detail"], self.why.looked_at)
        return DIFFICULTY["bins"] * level + again / len(subject.batch) * _seconds(subject.losses)

    def structure(self, player: None) -> float:
        """Two models from two noises each, then two swaps and two handoffs, each at every level that is kept."""
        steps = STRUCTURE["sampler"].steps
        rest = sum(steps - k for k in kept_points(steps, STRUCTURE["levels"]).tolist())
        return (4 * steps + 4 * rest) * self._step(self.why.count)

    def connectivity(self, player: None) -> float:
        count, points = self.why.count, CONNECTIVITY["points"]
        subject = self.why.subject(self.model, None, bins=CONNECTIVITY["bins"])
        training = CONNECTIVITY["steps"] * seconds_per_step(self.why.images, self.settings, self.device)
        steps = 3 * CONNECTIVITY["sampler"].steps  # and twice as many for the ceiling
        images = 2 * steps * CONNECTIVITY["samples"] / count * self._step(count)
        return training + 3 * points * _seconds(subject.losses) + images  # on three paths

    def _step(self, count: int) -> float:
        """A step of sampling so many images."""
        return _seconds(partial(self._diffusion.generate, SharedNoise(0), range(count), Sampler(steps=2))) / 2

    @property
    def _diffusion(self) -> DiffusionModel:
        assert isinstance(self.model, DiffusionModel)  # no other is asked for what has noise levels
        return self.model


def _gradients(subject: Subject) -> None:
    blocks, _ = subject.blocks()
    with measuring(), untouched(subject.module):
        for gradient in mean_gradients(subject.module, subject.loss, [block.batch for block in blocks]):
            float(gradient[0].sum())  # waits for an accelerator


def _product(operator: CurvatureOperator) -> None:
    float((operator @ gaussian(operator, 1, torch.Generator().manual_seed(0))).sum())


def _seconds(work: Callable[[], object], times: int = 2) -> float:
    """The fastest of some runs: the first one warms up, and other programs only ever add to a time."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
