"""Does a recipe change what is learned, or only when?

Models that differ in their seed are alike to some degree under shared noise. If models of the recipe are as alike to uniform ones as each
kind is to itself, the recipe changes only when; if they are less, it changes what. The annealing may do either alone, so uniform models
with the recipe's annealing stand between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import torch

from consistency_lab.paper.likeness import likeness_table
from consistency_lab.paper.protocol import Classifier, Protocol
from consistency_lab.paper.race.contestant_sets import FOLLOWING, recipes_of
from consistency_lab.paper.race.dry_run import pilot_cost
from consistency_lab.paper.race.findings import Findings, findings, findings_spec, from_row, unknown
from consistency_lab.paper.race.plan import RacePlan
from consistency_lab.paper.rows import Rows
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import fleet_cost, seconds_per_step
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.studies.fleet import Fleet
from consistency_lab.training.settings import TrainingSettings

SEEDS, COUNT = 4, 256  # models a family, and samples of the comparison


def what_is_learnt(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    seeds: int = SEEDS,
    count: int = COUNT,
    device: torch.device | None = None,
    workers: int | None = None,
    executor: str | Executor = "local",
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Consistency within and between uniform models, uniform models with the recipe's annealing, and the recipe's.

    Args:
        plan: the race's; runs are of its full length.
        store: where models are kept.
        rows: where finished rows are kept.
        seeds: models per family, three or more, with the race's first seeds: members of one seed began alike.
        count: samples of the comparison; quality is measured on the plan's.
        device: the CPU by default.
        workers, executor: where models are trained, see `executor_of`.
        say: is told what happens.

    Returns:
        `likeness_table` of the families ``uniform``, ``uniform, annealed`` (where that differs) and ``recipe``.

    Raises:
        UserError: fewer than three seeds.
    """
    place, where = device or torch.device("cpu"), executor_of(executor, workers)
    whole, images, held_out = plan.sets()
    kinds = _kinds(plan, findings(images, plan.pilot, rows, place, where))
    fleet = Fleet(images, _jobs(kinds, seeds), store, device=place, executor=where, say=say)
    families = [fleet.family(kind, [f"{kind}-s{seed}" for seed in range(seeds)]) for kind in kinds]
    classifier = Classifier.of(whole, store)
    protocol = Protocol(count=count, quality_count=plan.count)
    return likeness_table(families, images, held_out, rows, protocol, classifier=classifier, say=say)


def what_is_learnt_cost(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    seeds: int = SEEDS,
    count: int = COUNT,
    device: torch.device | None = None,
) -> dict[str, tuple[float, float]]:
    """Seconds of training that each model would still take, of its evaluation, and those of the pilot; arguments as for `what_is_learnt`.

    Before there are findings a recipe of the same cost stands in for the one that is not known yet.
    """
    place = device or torch.device("cpu")
    _, images, _ = plan.sets()
    row = rows.find(findings_spec(images, plan.pilot, place))
    jobs = _jobs(_kinds(plan, from_row(row) if row else unknown()), seeds)
    asked = Protocol(count=count, quality_count=plan.count).evaluations()
    cost = fleet_cost(images, jobs, store, place, dict.fromkeys(jobs, asked))
    if row is None:
        cost = {"pilot": pilot_cost(plan, seconds_per_step(images, plan.pilot, place)), **cost}
    return cost


def _kinds(plan: RacePlan, found: Findings) -> dict[str, TrainingSettings]:
    taught = recipes_of(found, plan.base)[FOLLOWING].apply(plan.base)
    kinds = {"uniform": plan.base, "uniform, annealed": taught.replace(timesteps="uniform"), "recipe": taught}
    if kinds["uniform, annealed"] == plan.base:
        del kinds["uniform, annealed"]
    return kinds


def _jobs(kinds: Mapping[str, TrainingSettings], seeds: int) -> dict[str, TrainingSettings]:
    return {f"{kind}-s{seed}": settings.replace(seed=seed) for kind, settings in kinds.items() for seed in range(seeds)}
