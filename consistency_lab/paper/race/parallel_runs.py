"""Runs of a race one after another, or in parallel in separate processes; rows are written here, by one process alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import torch

from consistency_lab.errors import UserError
from consistency_lab.paper.race.running import RaceRun, Watch, keep, recorded, run_spec_of, train_watched
from consistency_lab.paper.rows import Rows

_process: dict[str, Watch] = {}  # of a worker: the watch, sent once


def threads_of(workers: int) -> int:
    """An equal share of the CPU's threads. Raises `UserError` for fewer than one worker."""
    if workers < 1:
        raise UserError(f"a race needs at least one worker, not {workers}.")
    return max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def as_one_of(workers: int) -> Iterator[None]:
    """What is timed inside runs with the threads that a run of the race has."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(workers) if workers > 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_all(
    watch: Watch,
    planned: Sequence[RaceRun],
    rows: Rows,
    *,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Train every run that the rows lack; equal runs once.

    Args:
        watch: what all are measured by.
        planned: in the order in which they are begun; equal settings are followed alike.
        rows: where each goes as soon as it is done, so that a stopped race loses the runs under way and no more.
        workers: processes, each with an equal share of the CPU's threads. Rows depend on the threads by rounding alone.
        say: is told what is done.
        after: called after each.

    Raises:
        UserError: fewer than one worker.
    """
    threads = threads_of(workers)
    missing: dict[str, RaceRun] = {}
    for run in planned:
        if recorded(watch, run, rows) is None:
            missing.setdefault(rows.key(run_spec_of(watch, run.settings)), run)
    todo = list(missing.values())

    def done(run: RaceRun, found: dict[str, Any]) -> None:
        keep(watch, run, rows, found)
        end = "" if found["diverged_at"] is None else f": diverged at step {found['diverged_at']}"
        say(f"{run.name}, seed {run.settings.seed}{end}")
        after()

    if workers == 1 or len(todo) < 2:
        for run in todo:
            done(run, train_watched(watch, run))
        return
    # Forked children would share the locks of torch's thread pools; spawned ones begin clean.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(watch, threads))
    try:
        waiting = {pool.submit(_train_one, run): run for run in todo}
        for future in as_completed(waiting):
            done(waiting[future], future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(watch: Watch, threads: int) -> None:
    torch.set_num_threads(threads)
    _process["watch"] = watch


def _train_one(run: RaceRun) -> dict[str, Any]:
    return train_watched(_process["watch"], run)
