"""The race of a preset: data, classifier, pilot, recipes and contestants, and what it would cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.devices import machine_name, measuring
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.paper.race.aggregation import SUSTAINED
from consistency_lab.paper.race.contestant_sets import (
    BASE,
    FIXED,
    FOLLOWING,
    center_contestants,
    families_of,
    pilot_free_contestants,
    recipes_of,
    standard_contestants,
)
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.crossing import arrival, losses_at
from consistency_lab.paper.race.findings import Findings, findings, findings_spec, from_row, unknown
from consistency_lab.paper.race.pace import ROUNDS, WARM_UP, known_pace, works_of
from consistency_lab.paper.race.parallel_runs import as_one_of, run_all
from consistency_lab.paper.race.race import FOLLOWED, TARGETS, Live, race
from consistency_lab.paper.race.running import RaceRun, Watch, evaluation_steps, recorded
from consistency_lab.paper.race.table import AGAINST, MATCHED, race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.recipe import Recipe
from consistency_lab.similarity.quality import set_classifier
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import loop_unkept, seconds_per_step
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import build_denoiser, training_spec

FRESH = "fresh-seeds"
CONTESTANT_SETS = ("standard", "pilot-free", FRESH, "centers")
RATES = (0.5, 1.0, 2.0)  # in units of the base's: what each optimizer and preconditioning is tried at first
MOST_RATES = 7  # that one of them is tried at, while the best is the lowest or the highest
Haste = tuple[bool, float, float]  # never arrived, when it did, loss at its end: the least is the fastest
TURNS = "steps, timed in turns"
_FROM_IMAGES = ("pilot-free", FRESH)
MADE = 5  # times that a recipe without a pilot is made, to know what it takes
_TIMED = 64  # images of a timed forward pass


@dataclass(frozen=True)
class RacePlan:
    """A race on one data set.

    Attributes:
        data: the set, by name; its first random ``images`` are trained on (all that are left: None).
        held_out: images that no run sees: loss and features are of them.
        base: uniform times at a constant rate; every contestant is a change of it.
        seeds: how many, from 0.
        pilot_steps: how long the pilot of the findings is trained.
        horizons: lengths of run, as fractions of the base's steps, of uniform times with annealing.
        length: of everything else that anneals.
        targets: fractions of the target pilot's run.
        target_seed, pilot_seed, rate_seed: of the target pilot, of the pilot whose findings the recipes follow, and of the runs that
            learning rates are chosen by.
        fresh_seed, fresh_seeds: the first seed, and how many, of the race between those that another race has chosen.
        followed: seeds whose controls and recipes are sampled at every evaluation; all others at the last.
        batch, every, count, nfe: samples of the frozen batch, steps between its records, samples of an evaluation and network evaluations a
            sample.
        data_dir: folder with the files of published sets; no row depends on where they lie.
    """

    data: str
    held_out: int
    base: TrainingSettings
    seeds: int
    pilot_steps: int
    images: int | None = None
    horizons: tuple[float, ...] = (0.3, 0.45, 0.5, 1.0)
    length: float = 0.5
    targets: tuple[float, ...] = TARGETS
    target_seed: int = 1000
    pilot_seed: int = 2000
    rate_seed: int = 3000
    fresh_seed: int = 4000
    fresh_seeds: int = 5
    batch: int = 512
    every: int = 25
    count: int = 1000
    nfe: int = 20
    followed: int = 1
    data_dir: Path | None = None

    @property
    def pilot(self) -> TrainingSettings:
        """The settings of the pilot whose findings recipes follow."""
        return self.base.replace(steps=self.pilot_steps, seed=self.pilot_seed)

    @property
    def fresh(self) -> range:
        """Seeds that nothing was chosen on."""
        return range(self.fresh_seed, self.fresh_seed + self.fresh_seeds)

    def sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """The whole set, what is trained on, and what is held out."""
        whole = load_images(self.data, data_dir=self.data_dir)
        training = self.images or len(whole) - self.held_out
        if not 0 < training <= len(whole) - self.held_out:
            raise UserError(
                f"{training} + {self.held_out} images cannot be cut from the {len(whole)} of {whole.name!r}."
            )
        images, held_out = whole.split(training, self.held_out, seed=0)
        return whole, images, held_out


def race_contestants(
    plan: RacePlan,
    contestant_set: str,
    found: Findings,
    foreign: Mapping[str, Recipe] | None = None,
    free: Recipe | None = None,
    rates: Mapping[str, float] | None = None,
    seconds: float = 0.0,
) -> list[Contestant]:
    """The contestants. Raises `UserError` for a set that does not exist, or recipes for one that has none.

    Args:
        found, foreign: of the standard ones.
        free, rates, seconds: of those without a pilot, see `pilot_free_contestants`.
    """
    _check_contestant_set(contestant_set, foreign)
    if contestant_set == "centers":
        return center_contestants(plan.base)
    if contestant_set in _FROM_IMAGES:
        assert free is not None
        return pilot_free_contestants(
            plan.base, free, rates or {}, horizons=plan.horizons, length=plan.length, seconds=seconds
        )
    options = {"pilot_steps": plan.pilot_steps, "horizons": plan.horizons, "length": plan.length, "foreign": foreign}
    return standard_contestants(plan.base, found, **options)  # type: ignore[arg-type]


def leaders(contestants: Sequence[Contestant], table: pd.DataFrame | None) -> list[Contestant]:
    """The recipe at its fastest length and the fastest control of each kind that a goal is set against, by a race's table.

    Before there has been one: the first of each kind.
    """
    if table is None:
        first = {each.role: each for each in reversed(contestants)}
        matched = next(each for each in contestants if each.entry == first["recipe"].matched)
        return [first["control"], first["annealed"], matched, first["recipe"]]
    recipe = table[(table["role"] == "recipe") & table["fastest"]]
    goals = recipe[recipe["against"].isin([AGAINST[role] for role in ("control", "annealed")] + [MATCHED])]
    names = {*goals["contestant"], *goals["control"]}
    return [each for each in contestants if each.name in names]


def free_recipe(plan: RacePlan, images: ImageSet) -> Recipe:
    """The recipe that needs no pilot, for the base of a plan."""
    return Recipe.from_images(images, settings=plan.base)


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


def rates_of(plan: RacePlan, free: Recipe, watch: Watch | None, rows: Rows) -> tuple[list[RaceRun], dict[str, float]]:
    """What is still to be run before learning rates can be chosen, and, where nothing is, the rates by name of `BASE` and of `families_of`.

    One rule for all, the controls too: of runs with uniform times at a constant rate, on a seed that no race has, the one that reaches the
    last target first; of those that never do, the one with the lowest loss at its end. Where the lowest or the highest rate is the best,
    the next one beyond it is tried as well. The targets stay those of the base as it is.

    Args:
        watch: None where nothing has been run yet.
    """
    pilot = _target_pilot(plan)
    families: dict[str, dict[str, object]] = {BASE: {}, **families_of(free)}

    def at(name: str, factor: float) -> RaceRun:
        settings = plan.base.replace(**families[name], lr=factor * plan.base.lr, seed=plan.rate_seed)
        return RaceRun(f"{name} at {factor:g} of the rate", settings)

    def found(run: RaceRun) -> dict[str, Any] | None:
        return None if watch is None else recorded(watch, run, rows)

    missing = [run for run in (pilot, *(at(name, factor) for name in families for factor in RATES)) if not found(run)]
    if missing:
        return missing, {}
    known = found(pilot)
    assert known is not None
    (target,) = losses_at(known["steps"], known["loss"], [plan.targets[-1] * plan.base.steps])

    def haste_of(name: str, factor: float) -> Haste | None:
        run = at(name, factor)
        its = found(run)
        if its is None:
            return None
        losses, diverged = np.array(its["loss"], dtype=float), its["diverged_at"] is not None
        window = SUSTAINED * plan.base.steps
        arrived = arrival(its["steps"], losses, target, window, run.settings.steps, diverged)
        end = math.inf if diverged or not len(losses) else float(losses[-1])
        return (True, 0.0, end) if arrived.censored else (False, arrived.at, end)

    rates = {}
    for name in families:
        factor, known_yet = _best_factor(partial(haste_of, name))
        if not known_yet:
            missing.append(at(name, factor))
        rates[name] = factor * plan.base.lr
    return missing, {} if missing else rates


def _best_factor(haste: Callable[[float], Haste | None]) -> tuple[float, bool]:
    """The best factor of the rate, and True; or the next that has to be tried before that is known, and False."""
    tried = {factor: haste(factor) for factor in RATES}
    while True:
        best = min(tried, key=lambda factor: tried[factor])  # type: ignore[arg-type, return-value]
        beyond = {min(tried): best / 2, max(tried): best * 2}.get(best)
        if beyond is None or len(tried) == MOST_RATES:
            return best, True
        found = haste(beyond)
        if found is None:
            return beyond, False
        tried[beyond] = found


def pilot_cost(plan: RacePlan, seconds_a_step: float) -> tuple[float, float]:
    """Seconds of training the pilot of the findings, and of its probes, which take about twice as long."""
    training = seconds_a_step * plan.pilot_steps
    return training, 2 * training


def _target_pilot(plan: RacePlan) -> RaceRun:
    return RaceRun("target pilot", plan.base.replace(seed=plan.target_seed))


def race_recipes(plan: RacePlan, rows: Rows, device: torch.device | None = None) -> dict[str, Recipe]:
    """The leading recipes of the standard contestants, ``followed`` and ``fixed``, for a race on another set.

    Raises `UserError` where the rows have no findings.
    """
    row = rows.find(findings_spec(plan.sets()[1], plan.pilot, device or torch.device("cpu")))
    if row is None:
        raise UserError("there are no findings yet; run the standard race of this preset.")
    made = recipes_of(from_row(row), plan.base)
    return {"followed": made[FOLLOWING], "fixed": made[FIXED]}


def _check_contestant_set(contestant_set: str, foreign: Mapping[str, Recipe] | None) -> None:
    if contestant_set not in CONTESTANT_SETS:
        raise UserError(f"the contestants of a race are one of {', '.join(CONTESTANT_SETS)}, not {contestant_set!r}.")
    if contestant_set != "standard" and foreign:
        raise UserError(f"the {contestant_set} contestants race no recipes of others; give them to the standard ones.")


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
    _check_contestant_set(contestant_set, foreign)
    whole, images, held_out = plan.sets()
    say(f"{images.name}: {len(images)} images, {len(held_out)} held out")
    watch = _watch(plan, whole, images, held_out, store, place)
    found, free, rates, seconds = unknown(), None, dict[str, float](), 0.0
    if contestant_set in _FROM_IMAGES:
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
        return _raced(plan, contestants, range(plan.seeds), watch, rows, where, say, live)
    before = _raced(plan, contestants, range(plan.seeds), watch, rows, where, say)
    chosen = leaders(contestants, race_table(before))
    say("on fresh seeds: " + "; ".join(each.name for each in chosen))
    return _raced(plan, chosen, plan.fresh, watch, rows, where, say, live)


def _raced(
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
    _check_contestant_set(contestant_set, foreign)
    whole, images, held_out = plan.sets()
    row = rows.find(findings_spec(images, plan.pilot, place))
    # Rows are known by the classifier's facts among others; where there are rows there has been a classifier.
    watch = _watch(plan, whole, images, held_out, store, place) if len(rows) else None
    free = free_recipe(plan, images) if contestant_set in _FROM_IMAGES else None
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
    planned = {"target pilot": [_target_pilot(plan)]}
    if trials:
        planned["learning rates"] = [run for run in trials if run != _target_pilot(plan)]

    def missing_of(its: Sequence[RaceRun]) -> list[RaceRun]:
        return [run for run in its if watch is None or recorded(watch, run, rows) is None]

    def plan_runs(racing: Sequence[Contestant], seeds: range, what: str = "") -> float:
        """Add the runs of a race; seconds of its turns that are not known yet."""
        for each in racing:
            follow = each.role in FOLLOWED
            planned[each.name + what] = [
                RaceRun(each.name, each.settings.replace(seed=seed), follow and k < plan.followed)
                for k, seed in enumerate(seeds)
            ]
        missing = 0.0
        for k in range(len(seeds)):
            raced = [planned[each.name + what][k] for each in racing]
            if watch is None or known_pace(watch, raced, rows) is None:
                missing += sum(step_of(settings) for settings in works_of(raced)) * (WARM_UP + ROUNDS)
        return missing

    turns = plan_runs(contestants, range(plan.seeds))
    if contestant_set == FRESH:
        if watch is None or trials or turns or any(missing_of(its) for its in planned.values()):
            chosen = leaders(contestants, None)
        else:  # nothing is run: that race is of the rows
            before = _raced(
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


def _watch(
    plan: RacePlan, whole: ImageSet, images: ImageSet, held_out: ImageSet, store: Store, device: torch.device
) -> Watch:
    classifier, sampler = set_classifier(whole, store), Sampler("dpm++2m", plan.nfe)
    return Watch(
        images, held_out, classifier, str(plan.base.schedule), plan.batch, plan.every, plan.count, sampler, device
    )


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
