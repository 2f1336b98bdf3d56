"""A study from its plan: which data, which models, which table; and what it would still cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.paper.emergence import emergence_table
from consistency_lab.paper.guidance import guided
from consistency_lab.paper.likeness import likeness_table
from consistency_lab.paper.pairs import every_pair_sentence, pair_table
from consistency_lab.paper.plans import LikenessPlan, SizesPlan
from consistency_lab.paper.protocol import Classifier, Protocol
from consistency_lab.paper.rows import Rows, all_finished
from consistency_lab.paper.sampling import SHARED, sampling_table
from consistency_lab.paper.shipped import shipped_cost, shipped_table
from consistency_lab.paper.sizes import SEEDS, size_sweep
from consistency_lab.paper.why import Why
from consistency_lab.paper.why_cost import why_cost
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import fleet_cost, seconds_per_step
from consistency_lab.studies.executors import Executor
from consistency_lab.studies.fleet import Family, Fleet
from consistency_lab.training.run_io import snapshot_steps
from consistency_lab.training.settings import LoopSettings, TrainingSettings

Cost = dict[str, tuple[float, float]]


class Sets(NamedTuple):
    """The whole set, what is trained on, and the real images that quality and losses are taken on."""

    whole: ImageSet
    images: ImageSet
    held_out: ImageSet


def plan_sets(plan: LikenessPlan, data_dir: Path | None = None) -> Sets:
    """The sets of a plan. Raises `UserError` for data that are not there or cannot be split so."""
    whole = load_images(plan.data, data_dir=data_dir)
    if isinstance(plan.held_out, str):
        images, held_out = whole, load_images(plan.held_out, data_dir=data_dir)
    else:
        images, held_out = whole.split(len(whole) - plan.held_out, plan.held_out, seed=0)
    if len(held_out) > plan.most_held_out:
        held_out = held_out.take(range(plan.most_held_out), f"{held_out.name}, first {plan.most_held_out}")
    return Sets(whole, images, held_out)


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What every study is told.

    Args:
        store: where models are kept.
        rows: where finished rows are kept.
        seed: of the shared noise.
        count: samples of a comparison, or images of a probe; the plan's own number by default.
        data_dir: folder with the files of published sets.
        device: where it happens.
        workers, executor: where models are trained, see `executor_of`.
        say: is told what happens.
    """

    store: Store
    rows: Rows
    seed: int = 0
    count: int | None = None
    data_dir: Path | None = None
    device: str | torch.device = "cpu"
    workers: int | None = None
    executor: str | Executor = "local"
    say: Callable[[str], None] = lambda line: None

    @property
    def _training(self) -> dict[str, Any]:
        """How models are trained."""
        return {"device": self.device, "workers": self.workers, "executor": self.executor, "say": self.say}


@dataclass(frozen=True)
class TableStudy(_Study):
    """A study and its table; what `_Study` has is given by keyword.

    Args:
        what: ``"emergence"``, ``"sampling"``, ``"why"``, or another name: then the table of `likeness_table`.
        plan: data, models and measures; see `presets`.
    """

    what: str
    plan: LikenessPlan

    @cached_property
    def sets(self) -> Sets:
        return plan_sets(self.plan, self.data_dir)

    @cached_property
    def protocol(self) -> Protocol:
        plan, sampler = self.plan, Sampler(steps=self.plan.sampler_steps)
        count = self.count or plan.count
        return Protocol(plan.metrics, count, plan.quality_count, sampler, seed=self.seed, references=plan.references)

    @property
    def members(self) -> Mapping[str, list[str]]:
        """Family -> names of its models."""
        chosen = self.plan.emergence if self.what in ("emergence", "sampling") else self.plan.families
        return {name: names for name, names in self.plan.members.items() if name in chosen}

    @property
    def jobs(self) -> dict[str, LoopSettings]:
        """The settings of every model."""
        return {name: self.plan.jobs[name] for names in self.members.values() for name in names}

    @cached_property
    def fleet(self) -> Fleet:
        return Fleet(self.sets.images, self.jobs, self.store, **self._training)

    @property
    def families(self) -> list[Family]:
        """Those of the plan; of class-conditional ones one at each of its scales of guidance."""
        found = []
        for name, names in self.members.items():
            family = self.fleet.family(name, names)
            scales = self.plan.scales if self._conditional(self.jobs[names[0]]) else ()
            found += [guided(family, scale) for scale in scales] or [family]
        return found

    @staticmethod
    def _conditional(settings: LoopSettings) -> bool:
        return isinstance(settings, TrainingSettings) and settings.conditional

    @property
    def why(self) -> Why:
        images, held_out, count = self.sets.images, self.sets.held_out, self.count or self.plan.probed
        return Why(images, held_out, self.store, self.rows, count=count, seed=self.seed, say=self.say)

    def table(self) -> pd.DataFrame:
        """The table; every row that is missing is made, and the models that it asks for. Raises `UserError` as what makes it."""
        if self.what == "why":
            return self.why.table(self.families)
        table = self._table(self.rows, self.say)
        if self.what not in ("emergence", "sampling") and self.plan.crosses:
            self.say(every_pair_sentence(pair_table(self.families, self.sets.images, self.rows, self.protocol)))
        return table

    def _table(self, rows: Rows, say: Callable[[str], None]) -> pd.DataFrame:
        if self.plan.shipped:
            return shipped_table(self.plan.shipped, rows, self.protocol, device=self.device, say=say)
        _, images, held_out = self.sets
        if self.what == "emergence":
            steps = {name: snapshot_steps(self.jobs[names[0]]) for name, names in self.members.items()}
            return emergence_table(self.families, steps, images, rows, self.protocol, say=say)
        if self.what == "sampling":
            return sampling_table(self.families, images, rows, self.protocol, say=say)
        classifier = Classifier.of(self.sets.whole, self.store) if self.plan.quality else None
        options: dict[str, Any] = {"classifier": classifier, "crosses": self.plan.crosses, "say": say}
        return likeness_table(self.families, images, held_out, rows, self.protocol, **options)

    def cost(self) -> Cost:
        """Seconds of training and of evaluation that each job would still take, measured on a few steps.

        Nothing where the rows have all of it. Where they have a part, that of `why` is left out; the others count as a whole, so that
        theirs is an upper bound.
        """
        if self.what == "why":
            return why_cost(self.why, self.fleet, self.members)
        if all_finished(self.rows, lambda rows: self._table(rows, lambda line: None)):
            return dict.fromkeys(self.plan.shipped or self.jobs, (0.0, 0.0))
        if self.plan.shipped:
            return shipped_cost(self.plan.shipped, self.protocol, self.device)
        asked = {name: self._evaluations(each) for name, each in self.jobs.items()}
        return fleet_cost(self.sets.images, self.jobs, self.store, torch.device(self.device), asked)

    def _evaluations(self, settings: LoopSettings) -> int:
        """Evaluations of the network that a model costs in the table."""
        if self.what == "emergence":  # it is walked as it was at each of the steps
            return len(snapshot_steps(settings)) * self.protocol.count * self.protocol.sampler.evaluations()
        if self.what == "sampling":
            return len(SHARED) * self.protocol.count * self.protocol.sampler.evaluations()
        scales = len(self.plan.scales) if self._conditional(settings) else 0
        often = 2 * scales or 1  # with and without the label, at every scale
        return often * self.protocol.evaluations(isinstance(settings, TrainingSettings))


@dataclass(frozen=True)
class SizesStudy(_Study):
    """The sweep over the size of the training set of a plan; what `_Study` has is given by keyword."""

    plan: SizesPlan

    def table(self) -> pd.DataFrame:
        """That of `size_sweep` of each architecture, named in the column ``network``, one below the other."""
        tables = [
            self._table(each, self.plan.sizes, self.rows).assign(network=str(each.network))
            for each in self.plan.settings
        ]
        return pd.concat(tables, ignore_index=True)

    def cost(self) -> Cost:
        """Seconds of training that each size would still take; nothing where the rows have it. Samples are few beside that."""
        cost: Cost = {}
        for settings in self.plan.settings:
            seconds = cache(partial(self._seconds, settings))  # timed once, if at all
            for size in self.plan.sizes:
                done = all_finished(self.rows, partial(self._table, settings, [size]))
                training = 0.0 if done else 2 * SEEDS * seconds()
                cost[f"{settings.network}, size {size}, {2 * SEEDS} models"] = (training, 0.0)
        return cost

    @cached_property
    def images(self) -> ImageSet:
        return load_images(self.plan.data, data_dir=self.data_dir)

    def _seconds(self, settings: TrainingSettings) -> float:
        """Of training one model."""
        return seconds_per_step(self.images, settings, torch.device(self.device)) * settings.steps

    def _table(self, settings: TrainingSettings, sizes: Sequence[int], rows: Rows) -> pd.DataFrame:
        options = {**self._training, "count": self.count or self.plan.count, "noise_seed": self.seed}
        return size_sweep(self.images, sizes, settings, self.store, rows, **options)
