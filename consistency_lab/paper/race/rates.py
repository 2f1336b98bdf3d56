"""The learning rates that contestants race at, all chosen by one rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from consistency_lab.paper.race.aggregation import SUSTAINED
from consistency_lab.paper.race.contestant_sets import BASE, families_of
from consistency_lab.paper.race.crossing import arrival, losses_at
from consistency_lab.paper.race.plan import RacePlan
from consistency_lab.paper.race.running import RaceRun, Watch, recorded
from consistency_lab.paper.rows import Rows
from consistency_lab.recipe import Recipe

RATES = (0.5, 1.0, 2.0)  # in units of the base's: what each optimizer and preconditioning is tried at first
MOST_RATES = 7  # that one of them is tried at, while the best is the lowest or the highest
Haste = tuple[bool, float, float]  # never arrived, when it did, loss at its end: the least is the fastest


def rates_of(plan: RacePlan, free: Recipe, watch: Watch | None, rows: Rows) -> tuple[list[RaceRun], dict[str, float]]:
    """What is still to be run before learning rates can be chosen, and, where nothing is, the rates by name of `BASE` and of `families_of`.

    One rule for all, the controls too: of runs with uniform times at a constant rate, on a seed that no race has, the one that reaches the
    last target first; of those that never do, the one with the lowest loss at its end. Where the lowest or the highest rate is the best,
    the next one beyond it is tried as well. The targets stay those of the base as it is.

    Args:
        watch: None where nothing has been run yet.
    """
    pilot = plan.target_pilot
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
