"""Runs of a race, wherever an executor has its workers; rows are written here, by one process alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch

from consistency_lab.paper.race.running import RaceRun, Watch, keep, recorded, run_spec_of, train_watched
from consistency_lab.paper.rows import Rows
from consistency_lab.progress import DONE, current_board
from consistency_lab.studies.executors import Executor


@contextmanager
def as_one_of(executor: Executor, device: torch.device) -> Iterator[None]:
    """What is timed inside has the threads that a run of the race has."""
    before = torch.get_num_threads()
    torch.set_num_threads(executor.threads(device))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_all(
    watch: Watch,
    planned: Sequence[RaceRun],
    rows: Rows,
    executor: Executor,
    *,
    say: Callable[[str], None] = lambda line: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Train every run that the rows lack; equal runs once.

    Args:
        watch: what all are measured by.
        planned: in the order in which they are begun; equal settings are followed alike.
        rows: where each goes as soon as it is done, so that a stopped race loses the runs under way and no more. A run that
            loses its worker begins anew in another.
        executor: where they are trained. Rows depend on the threads of a run by rounding alone.
        say: is told what is done.
        after: called after each.

    Raises:
        UserError: a run that lost its worker too often.
    """
    missing: dict[str, RaceRun] = {}
    for run in planned:
        if recorded(watch, run, rows) is None:
            missing.setdefault(rows.key(run_spec_of(watch, run.settings)), run)
    todo = {run.label: run for run in missing.values()}
    board = current_board()
    if board:
        for run in planned:
            if run.label in todo or recorded(watch, run, rows) is not None:  # not what another run stands for
                board.plan(run.label, run.settings.steps, done=run.label not in todo)
    jobs = {name: (run,) for name, run in todo.items()}
    with closing(executor.run(_train_one, jobs, (watch.on("cpu"),), watch.device, say)) as done:
        for name, found in done:
            keep(watch, todo[name], rows, found)
            if board:
                board.end(name, DONE if found["diverged_at"] is None else f"diverged at step {found['diverged_at']}")
            say(name if found["diverged_at"] is None else f"{name}: diverged at step {found['diverged_at']}")
            after()


def _train_one(watch: Watch, run: RaceRun, device: torch.device) -> dict[str, Any]:
    return train_watched(watch.on(device), run)
