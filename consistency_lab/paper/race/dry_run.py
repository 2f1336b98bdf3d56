"""What a preset's race would still take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.findings import findings_spec, from_row, unknown
from consistency_lab.paper.race.pace import ROUNDS, WARM_UP, known_pace, works_of
from consistency_lab.paper.race.plan import (
    FRESH,
    FROM_IMAGES,
    RacePlan,
    check_contestant_set,
    free_recipe,
    leaders,
    race_contestants,
    watch_of,
)
from consistency_lab.paper.race.race import runs_of
from consistency_lab.paper.race.rates import rates_of
from consistency_lab.paper.race.running import RaceRun, evaluation_steps, recorded
from consistency_lab.paper.race.study import raced
from consistency_lab.paper.race.table import race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.recipe import Recipe
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import seconds_per_step
from consistency_lab.studies.executors import executor_of
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import build_denoiser, training_spec

TURNS = "steps, timed in turns"
_TIMED = 64  # images of a timed forward pass


def pilot_cost(plan: RacePlan, seconds_a_step: float) -> tuple[float, float]:
    """Seconds of training the pilot of the findings, and of its probes, which take about twice as long."""
    training = seconds_a_step * plan.pilot_steps
    return training, 2 * training


def race_dry_run(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    contestant_set: str = "standard",
    foreign: Mapping[str, Recipe] | None = None,
    device: torch.device | None = None,
) -> dict[str, tuple[float, float]]:
    """Seconds of training and of evaluations that each contestant would still take over all seeds; 0 for what the rows have. Under
    `TURNS`, what timing their steps would take.

    Nothing is trained but a classifier that committed rows were made with and the store lacks. Before there are findings the recipes
    are not known; uniform ones of the same cost stand in for them, and the pilot's probes count as evaluation, with twice the pilot's
    training, which is about what they take. Before it is known who races on fresh seeds, the first of each kind stand for them.
    """
    place = device or torch.device("cpu")
    check_contestant_set(contestant_set, foreign)
    whole, images, held_out = plan.sets()
    row = rows.find(findings_spec(images, plan.pilot, place))
    # Rows are known by the classifier's facts among others; where there are rows there has been a classifier.
    watch = watch_of(plan, whole, images, held_out, store, place) if len(rows) else None
    free = free_recipe(plan, images) if contestant_set in FROM_IMAGES else None
    trials, rates = rates_of(plan, free, watch, rows) if free else ([], {})
    known = from_row(row) if row else unknown()
    contestants = race_contestants(plan, contestant_set, known, foreign, free, rates)
    per_step: dict[TrainingSettings, float] = {}
    sampled, looked = (_seconds_to_evaluate(images, plan, place, n) for n in (plan.nfe * plan.count, plan.batch))

    def step_of(settings: TrainingSettings) -> float:
        # Whichever times are drawn and however it anneals, a step costs about the same.
        names = ("network", "predicts", "target", "batch", "optimizer", "momentum", "precision")
        alike = plan.base.replace(**{name: getattr(settings, name) for name in names})
        if alike not in per_step:
            per_step[alike] = seconds_per_step(images, alike, place)
        return per_step[alike]

    cost: dict[str, tuple[float, float]] = {}
    if contestant_set == "standard" and not row:
        cost["pilot"] = pilot_cost(plan, step_of(plan.pilot))
    planned = {"target pilot": [plan.target_pilot]}
    if trials:
        planned["learning rates"] = [run for run in trials if run != plan.target_pilot]

    def missing_of(its: Sequence[RaceRun]) -> list[RaceRun]:
        return [run for run in its if watch is None or recorded(watch, run, rows) is None]

    def plan_runs(racing: Sequence[Contestant], seeds: range, what: str = "") -> float:
        """Add the runs of a race; seconds of its turns that are not known yet."""
        runs = runs_of(racing, seeds, plan.followed)
        for its in zip(*runs.values(), strict=True):
            planned[its[0].name + what] = list(its)
        unknown_yet = [its for its in runs.values() if watch is None or known_pace(watch, its, rows) is None]
        return sum(step_of(work) for its in unknown_yet for work in works_of(its)) * (WARM_UP + ROUNDS)

    turns = plan_runs(contestants, range(plan.seeds))
    if contestant_set == FRESH:
        if watch is None or trials or turns or any(missing_of(its) for its in planned.values()):
            chosen = leaders(contestants, None)
        else:  # nothing is run: that race is of the rows
            before = raced(
                plan, contestants, range(plan.seeds), watch, rows, executor_of("local"), say=lambda line: None
            )
            chosen = leaders(contestants, race_table(before))
        turns += plan_runs(chosen, plan.fresh, ", fresh seeds")
    for name, its in planned.items():
        missing = missing_of(its)
        training = sum(step_of(run.settings) * run.settings.steps for run in missing)
        evaluation = sum(
            looked * run.settings.steps / plan.every
            + sampled * (len(evaluation_steps(run.settings.steps)) if run.followed else 1)
            for run in missing
        )
        cost[name] = (training, evaluation)
    return {**cost, TURNS: (0.0, turns)}


def _seconds_to_evaluate(images: ImageSet, plan: RacePlan, device: torch.device, passes: int) -> float:
    """Time of so many passes of one image through the network, from one forward pass after one that does not count."""
    denoiser = build_denoiser(training_spec(images, plan.base, device)).to(device).eval()
    x, t = (
        torch.zeros(_TIMED, *images.shape, dtype=torch.float32, device=device),
        torch.full((_TIMED,), 0.5, dtype=torch.float32, device=device),
    )
    taken = []
    with measuring(), torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            float(denoiser(x, t).eps.sum())  # waits for an accelerator
            taken.append(time.perf_counter() - start)
    return taken[-1] * passes / _TIMED
