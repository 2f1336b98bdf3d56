"""Does a recipe change what is learned, or only when?

Models that differ in their seed are alike to some degree under shared noise. If models of the recipe are as alike to uniform ones as each
kind is to itself, the recipe changes only when; if they are less, it changes what. The annealing may do either alone, so uniform models
with the recipe's annealing stand between.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch

from consistency_lab.paper.likeness import likeness_table
from consistency_lab.paper.protocol import Classifier, Protocol
from consistency_lab.paper.race.contestant_sets import FOLLOWING, recipes_of
from consistency_lab.paper.race.findings import findings
from consistency_lab.paper.race.study import RacePlan
from consistency_lab.paper.rows import Rows
from consistency_lab.store.runs import Store
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.studies.fleet import Fleet


def what_is_learnt(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    seeds: int = 4,
    count: int = 256,
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
    taught = recipes_of(findings(images, plan.pilot, rows, place, where), plan.base)[FOLLOWING].apply(plan.base)
    kinds = {"uniform": plan.base, "uniform, annealed": taught.replace(timesteps="uniform"), "recipe": taught}
    if kinds["uniform, annealed"] == plan.base:
        del kinds["uniform, annealed"]
    jobs = {f"{kind}-s{seed}": settings.replace(seed=seed) for kind, settings in kinds.items() for seed in range(seeds)}
    fleet = Fleet(images, jobs, store, device=place, executor=where, say=say)
    families = [fleet.family(kind, [f"{kind}-s{seed}" for seed in range(seeds)]) for kind in kinds]
    classifier = Classifier.of(whole, store)
    protocol = Protocol(count=count, quality_count=plan.count)
    return likeness_table(families, images, held_out, rows, protocol, classifier=classifier, say=say)
