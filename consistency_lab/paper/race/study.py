"""The race of a preset: classifier, learning rates or pilot, recipes and contestants; everything resumes from the rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import machine_name
from consistency_lab.errors import UserError
from consistency_lab.paper.race.contestant_sets import FIXED, FOLLOWING, recipes_of
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.findings import findings, findings_spec, from_row, unknown
from consistency_lab.paper.race.parallel_runs import as_one_of, run_all
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
from consistency_lab.paper.race.race import Live, race
from consistency_lab.paper.race.rates import rates_of
from consistency_lab.paper.race.running import Watch
from consistency_lab.paper.race.table import race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.recipe import Recipe
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import loop_unkept
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.training.train import training_spec

MADE = 5  # times that a recipe without a pilot is made, to know what it takes


def recipe_seconds(plan: RacePlan, images: ImageSet, rows: Rows, device: torch.device, executor: Executor) -> float:
    """What it takes to make `free_recipe` and to begin a run of it, the closed form among it: the median of some, a row of the race."""

    def once() -> float:
        fresh = replace(images)  # of which no moments are known
        began = time.perf_counter()
        loop_unkept(fresh, free_recipe(plan, fresh).apply(plan.base), device)
        return time.perf_counter() - began

    def compute() -> dict[str, Any]:
        with as_one_of(executor, device):
            once()  # warms up
            return {"machine": machine_name(device), "seconds": float(np.median([once() for _ in range(MADE)]))}

    # What is done to make it: a row of what was done before is not found.
    steps = ["moments, once", "noise of the target", "arithmetic of a step"]
    spec = {"row": "recipe", "made": MADE, "steps": steps, "run": training_spec(images, plan.base, device)}
    return float(rows.row(spec, compute)["seconds"])


def race_recipes(plan: RacePlan, rows: Rows, device: torch.device | None = None) -> dict[str, Recipe]:
    """The leading recipes of the standard contestants, ``followed`` and ``fixed``, for a race on another set.

    Raises `UserError` where the rows have no findings.
    """
    row = rows.find(findings_spec(plan.sets()[1], plan.pilot, device or torch.device("cpu")))
    if row is None:
        raise UserError("there are no findings yet; run the standard race of this preset.")
    made = recipes_of(from_row(row), plan.base)
    return {"followed": made[FOLLOWING], "fixed": made[FIXED]}


def run_race(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    contestant_set: str = "standard",
    foreign: Mapping[str, Recipe] | None = None,
    device: torch.device | None = None,
    workers: int | None = None,
    executor: str | Executor = "local",
    live: Live | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Everything of a preset's race; resumes from the rows.

    Args:
        plan: what to do; see `presets`.
        store: where the classifier is kept.
        rows: where findings, runs and evaluations are kept.
        contestant_set: ``"standard"``; ``"pilot-free"``: a recipe from the images of the set, with its ablations and matched controls;
            ``"fresh-seeds"``: of that race, which is run first, the recipe and the fastest control of each kind, on seeds that nothing was
            chosen on; or ``"centers"``: the paper's ablation over the center of CLTS.
        foreign: name -> recipe from findings on another set.
        device: the CPU by default.
        workers, executor: where runs are trained, see `executor_of`.
        live: is given the race so far after every seed, and the whole at the end.
        say: is told what happens.
    """
    place, where = device or torch.device("cpu"), executor_of(executor, workers)
    check_contestant_set(contestant_set, foreign)
    whole, images, held_out = plan.sets()
    say(f"{images.name}: {len(images)} images, {len(held_out)} held out")
    watch = watch_of(plan, whole, images, held_out, store, place)
    found, free, rates, seconds = unknown(), None, dict[str, float](), 0.0
    if contestant_set in FROM_IMAGES:
        free = free_recipe(plan, images)
        for reason in free.reasons:
            say(reason)
        while True:
            missing, rates = rates_of(plan, free, watch, rows)
            if not missing:
                break
            run_all(watch, missing, rows, where, say=say)
        seconds = recipe_seconds(plan, images, rows, place, where)
        say("learning rates: " + ", ".join(f"{name} {rate:g}" for name, rate in rates.items()))
    if contestant_set == "standard":
        say(f"pilot of {plan.pilot_steps} steps and its findings")
        found = findings(images, plan.pilot, rows, place, where)
        say("training {:.1f} s, probes {:.1f} s".format(*found.seconds))
    contestants = race_contestants(plan, contestant_set, found, foreign, free, rates, seconds)
    if contestant_set != FRESH:
        return raced(plan, contestants, range(plan.seeds), watch, rows, where, say, live)
    before = raced(plan, contestants, range(plan.seeds), watch, rows, where, say)
    chosen = leaders(contestants, race_table(before))
    say("on fresh seeds: " + "; ".join(each.name for each in chosen))
    return raced(plan, chosen, plan.fresh, watch, rows, where, say, live)


def raced(
    plan: RacePlan,
    contestants: Sequence[Contestant],
    seeds: range,
    watch: Watch,
    rows: Rows,
    executor: Executor,
    say: Callable[[str], None],
    live: Live | None = None,
) -> xr.Dataset:
    options = {"target_seed": plan.target_seed, "target_settings": plan.base, "targets": plan.targets}
    more = {"followed": plan.followed, "executor": executor, "live": live, "say": say}
    return race(contestants, watch, rows, seeds=seeds, **options, **more)  # type: ignore[arg-type]
