"""What a step of each contestant takes, with all of them in turns.

Timed run by run, seconds are those of different minutes of a machine, which differ by more than a preconditioning or a density costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from consistency_lab.devices import machine_name
from consistency_lab.paper.race.parallel_runs import as_one_of
from consistency_lab.paper.race.running import RaceRun, Watch, run_spec_of
from consistency_lab.paper.rows import Rows
from consistency_lab.studies.cost import losses_unkept
from consistency_lab.studies.executors import Executor
from consistency_lab.training.settings import TrainingSettings

ROUNDS = 60  # in each of which every contestant takes one step
WARM_UP = 10  # rounds that are not timed: they warm up, and adaptive densities fill their cells


class Pace(NamedTuple):
    """Seconds of a step by contestant, and the machine that took them."""

    machine: str
    seconds: dict[str, float]


def _work_of(settings: TrainingSettings) -> TrainingSettings:
    """What the work of a step depends on: not on the length of its run, the rate, or how fast the average forgets."""
    return settings.replace(steps=1000, lr=1e-3, lr_final=1.0, lr_warmup=0, ema_half_life=0.05)


def works_of(runs: Sequence[RaceRun]) -> dict[TrainingSettings, RaceRun]:
    """Of the runs that are alike in the work of a step, the first."""
    found: dict[TrainingSettings, RaceRun] = {}
    for run in runs:
        found.setdefault(_work_of(run.settings), run)
    return found


def known_pace(watch: Watch, runs: Sequence[RaceRun], rows: Rows) -> Pace | None:
    """What `measured_pace` measured, or None where it has not yet."""
    values = rows.find(_spec(watch, runs, rows))
    return None if values is None else _read(runs, values)


def measured_pace(watch: Watch, runs: Sequence[RaceRun], rows: Rows, executor: Executor) -> Pace:
    """Seconds that a step of training takes, of all runs of a seed in turns, in an order that changes from round to round.

    The median over the rounds: what other programs take from the machine they take from all alike. (Between steps that are disturbed and
    steps that are not, a low quantile falls on one side or the other by chance.) All runs are in memory at once, on the device of the
    watch, with the threads that a run of the executor has.
    """

    def compute() -> dict[str, Any]:
        with as_one_of(executor, watch.device):
            return {"machine": machine_name(watch.device), "seconds": _timed(watch, list(works_of(runs).values()))}

    return _read(runs, rows.row(_spec(watch, runs, rows), compute))


def _spec(watch: Watch, runs: Sequence[RaceRun], rows: Rows) -> dict[str, Any]:
    """The spec of the row: the keys of the rows of the runs that are timed."""
    timed = [rows.key(run_spec_of(watch, run.settings)) for run in works_of(runs).values()]
    return {"row": "pace", "rounds": ROUNDS, "runs": timed}


def _read(runs: Sequence[RaceRun], values: dict[str, Any]) -> Pace:
    seconds = dict(zip(works_of(runs), values["seconds"], strict=True))
    return Pace(values["machine"], {run.name: seconds[_work_of(run.settings)] for run in runs})


def _timed(watch: Watch, runs: Sequence[RaceRun]) -> list[float]:
    loops = [losses_unkept(watch.images, run.settings, watch.device) for run in runs]
    order, taken = np.random.Generator(np.random.Philox(0)), np.empty((ROUNDS, len(runs)))
    for turn in range(ROUNDS + WARM_UP):
        for i in order.permutation(len(runs)):
            began = perf_counter()
            next(loops[i])
            taken[turn % ROUNDS, i] = perf_counter() - began  # the last rounds take the places of the first
    return [float(each) for each in np.median(taken, axis=0)]
