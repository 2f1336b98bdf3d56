"""Long work as it goes on: a table that is drawn anew in a terminal, lines where there is none, and a page beside the rows."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from consistency_lab.choices import printable
from consistency_lab.errors import StoreError
from consistency_lab.progress import DONE, TRAINING, WAITING, Board, Job, duration, posting_to
from consistency_lab.reports.progress import headline, write_progress

_DRAW = 1.0  # seconds between two drawings in a terminal
_PAGE = 3.0  # between two pages
_LINE = 60.0  # between two lines about a job, where there is no terminal
_FRAME = 3  # lines of a terminal that the table leaves free

Say = Callable[[str], None]


@contextlib.contextmanager
def live(title: str, page: Path | None = None, quiet: bool = False) -> Iterator[Say]:
    """Show the work of the block; gives what says a line of its own, on standard output.

    A terminal has a table, and else standard error a line a minute for each job that trains: standard output holds nothing but the lines
    that are said. With ``quiet`` there is the page alone.

    Args:
        title: of the page.
        page: an HTML file, written every few seconds; None: none.
        quiet: print nothing.
    """
    board = Board()
    shown = _Table(board) if sys.stdout.isatty() and sys.stderr.isatty() else _Lines(board)
    views: list[Callable[[bool], None]] = [] if quiet else [shown.show]
    if page is not None:
        views.append(_page(board, title, page))

    def say(line: str) -> None:
        board.note(line)
        if not quiet:
            shown.say(line)

    over = threading.Event()
    with posting_to(board):
        watcher = threading.Thread(target=_watch, args=(board, views, over), name="progress", daemon=True)
        watcher.start()
        stopped: str | None = None
        try:
            yield say
        except BaseException as error:
            stopped = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise
        finally:
            over.set()
            watcher.join()
            board.close(stopped)
            for view in views:
                view(True)


def _watch(board: Board, views: list[Callable[[bool], None]], over: threading.Event) -> None:
    while not over.is_set():
        board.collect()
        for view in views:
            view(False)
        over.wait(_DRAW)


def _page(board: Board, title: str, path: Path) -> Callable[[bool], None]:
    """Writes the page once in a while, and at the end; a page that cannot be written is no reason to stop."""
    written = float("-inf")

    def write(last: bool) -> None:
        nonlocal written
        if last or time.monotonic() - written >= _PAGE:
            written = time.monotonic()
            with contextlib.suppress(StoreError):
                write_progress(board, title, path)

    return write


class _Lines:
    """What is said, and once a minute how far each job is that trains."""

    def __init__(self, board: Board):
        self._board, self._told = board, time.monotonic()

    def say(self, line: str) -> None:
        print(line, flush=True)

    def show(self, last: bool) -> None:
        if not last and time.monotonic() - self._told >= _LINE:
            self._told, now = time.monotonic(), time.time()
            for job in self._board.jobs:
                if job.state == TRAINING:
                    print("  ".join(cell for cell in cells(job, now) if cell), file=sys.stderr, flush=True)


class _Table:
    """A table at the foot of the terminal; lines that are said stand above it."""

    def __init__(self, board: Board, out: TextIO | None = None):
        self._board, self._out, self._height, self._lock = board, out or sys.stderr, 0, threading.Lock()

    def say(self, line: str) -> None:
        with self._lock:
            self._erase()
            print(line, flush=True)

    def show(self, last: bool) -> None:
        size = shutil.get_terminal_size()
        lines = table_lines(self._board, time.time(), size.columns - 1, size.lines - _FRAME)
        with self._lock:
            self._erase()
            self._out.write("".join(f"{line}\n" for line in lines))
            self._out.flush()
            self._height = 0 if last else len(lines)

    def _erase(self) -> None:
        if self._height:
            self._out.write(f"\x1b[{self._height}F\x1b[J")  # to the first line of the table, and clear from there
            self._out.flush()
        self._height = 0


def cells(job: Job, now: float) -> list[str]:
    """Name, state, step, loss and time left."""
    left = job.seconds_left(now)
    step = f"{job.step} of {job.steps}" if job.steps else ""
    loss = "" if job.loss is None else f"loss {job.loss:.4g}"
    return [printable(job.name), job.state, step, loss, "" if left is None else f"{duration(left)} left"]


def table_lines(board: Board, now: float, width: int, height: int) -> list[str]:
    """One line a job, those that train first, then what waits, then what is done; what does not fit is counted in the line above them."""
    order = {TRAINING: 0, WAITING: 1, DONE: 3}
    jobs = sorted(board.jobs, key=lambda job: order.get(job.state, 2))[: max(1, height - 1)]
    rows = [cells(job, now) for job in jobs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    hidden = len(board.jobs) - len(jobs)
    head = headline(board, now) + (f"; {hidden} of them not shown" if hidden else "")
    return [line[:width] for line in (printable(head), *lines)]
