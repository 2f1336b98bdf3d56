"""How far long work is. What trains says so with `told`; a `Board` gathers it, and whoever shows it reads the board.

Without a board around it nothing happens, and with one nothing that is computed changes. Work in other processes posts to a board by
way of files (`file_post`), or as its executor has it. This module imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

EVERY = 2.0  # seconds between two posts of one process, at least
WAITING, TRAINING, DONE = "waiting", "training", "done"

Posted = Mapping[str, Sequence[Any]]
"""Name of a job -> step, steps, loss (None before the first), and when that was (`time.time`)."""


class Post(Protocol):
    """What takes the words of `told`."""

    def tell(self, name: str, step: int, steps: int, loss: float | None) -> None: ...


_POST: ContextVar[Post | None] = ContextVar("post", default=None)


@contextlib.contextmanager
def posting_to(post: Post | None) -> Iterator[None]:
    """Within the block, `told` speaks to this post."""
    token = _POST.set(post)
    try:
        yield
    finally:
        _POST.reset(token)


def told(name: str, step: int, steps: int, loss: float | None = None) -> None:
    """Say that a job has taken so many of its steps; where nobody listens, nothing happens."""
    post = _POST.get()
    if post is not None:
        post.tell(name, step, steps, loss)


def current_board() -> Board | None:
    """The board of the work that this process leads, if somebody looks at it."""
    post = _POST.get()
    return post if isinstance(post, Board) else None


@dataclass(frozen=True)
class Job:
    """One line of a board.

    Attributes:
        name, state: `WAITING`, `TRAINING`, `DONE`, or how it ended otherwise.
        step, steps, loss: how far it is, and its loss there.
        first, last: (time, step) of the first and the last word of it; of what it did before it lost a worker nothing.
    """

    name: str
    state: str = WAITING
    step: int = 0
    steps: int = 0
    loss: float | None = None
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None

    def seconds_left(self, now: float) -> float | None:
        """At the pace that it has had so far; None before there is one, and where it is not training."""
        if self.state != TRAINING or self.first is None or self.last is None or self.last[1] <= self.first[1]:
            return None
        pace = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
        return max(0.0, pace * (self.steps - self.last[1]) - (now - self.last[0]))


class Board:
    """The jobs of one piece of work, in the order in which they were planned, and what was said last.

    Attributes:
        began, ended: when (`time.time`); ``ended`` is None while it goes on.
        stopped: why it did not come to its end, or None.
        notes: what was said: (time, line), the last `KEPT` lines.
    """

    KEPT = 12

    def __init__(self) -> None:
        self.began, self.ended, self.stopped = time.time(), None, None  # type: float, float | None, str | None
        self.notes: list[tuple[float, str]] = []
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._readers: list[Callable[[], Posted]] = []

    @property
    def jobs(self) -> list[Job]:
        """As they are now."""
        with self._lock:
            return list(self._jobs.values())

    def plan(self, name: str, steps: int, done: bool = False) -> None:
        """A job that is to be done, or is there already."""
        with self._lock:
            self._jobs.setdefault(name, Job(name, DONE if done else WAITING, steps if done else 0, steps))

    def note(self, line: str) -> None:
        """What happens now."""
        with self._lock:
            self.notes = [*self.notes, (time.time(), line)][-self.KEPT :]

    def tell(self, name: str, step: int, steps: int, loss: float | None) -> None:
        self._take({name: (step, steps, loss, time.time())})

    def end(self, name: str, how: str = DONE) -> None:
        """A job is done, or ended otherwise. A loss of an earlier step is none of a job that is done."""
        self.collect()
        with self._lock:
            job = self._jobs.get(name, Job(name))
            if how == DONE and job.step < job.steps:
                job = replace(job, step=job.steps, loss=None)
            self._jobs[name] = replace(job, state=how)

    def lost(self, name: str) -> None:
        """A job has lost its worker, and waits for another."""
        with self._lock:
            if name in self._jobs:
                now = time.time()  # what was posted before is of the worker that is gone
                self._jobs[name] = replace(self._jobs[name], state=WAITING, first=None, last=(now, 0))

    def close(self, stopped: str | None = None) -> None:
        """The work has ended, or was stopped."""
        self.collect()
        with self._lock:
            self.ended, self.stopped = time.time(), stopped
            left = {WAITING: "not begun" if stopped else "not needed", TRAINING: "stopped" if stopped else DONE}
            self._jobs = {name: replace(job, state=left.get(job.state, job.state)) for name, job in self._jobs.items()}

    @contextlib.contextmanager
    def listening(self, read: Callable[[], Posted]) -> Iterator[None]:
        """Within the block, what is read there counts too: the posts of other processes."""
        self._readers.append(read)
        try:
            yield
        finally:
            self.collect()
            self._readers.remove(read)

    def collect(self) -> None:
        """Take what other processes have posted."""
        for read in list(self._readers):
            self._take(read())

    def _take(self, posted: Posted) -> None:
        with self._lock:
            for name, (step, steps, loss, at) in posted.items():
                job = self._jobs.get(name, Job(name))
                if job.state not in (WAITING, TRAINING) or (job.last is not None and at <= job.last[0]):
                    continue
                here = (at, step)
                loss = job.loss if loss is None else loss
                state = DONE if step >= steps else TRAINING
                self._jobs[name] = Job(name, state, step, steps, loss, job.first or here, here)


class Throttled:
    """A post of another process: it passes its words on at most once in `EVERY` seconds, and the last of each job at once.

    Args:
        send: given all that was told, by job. What it raises is swallowed: training does not end for want of a listener.
    """

    def __init__(self, send: Callable[[dict[str, tuple[Any, ...]]], object]):
        self._send, self._told, self._sent = send, dict[str, tuple[Any, ...]](), float("-inf")

    def tell(self, name: str, step: int, steps: int, loss: float | None) -> None:
        self._told[name] = (step, steps, loss, time.time())
        if step >= steps or time.monotonic() - self._sent >= EVERY:
            self._sent = time.monotonic()
            with contextlib.suppress(Exception):
                self._send(dict(self._told))


def file_post(path: Path) -> Throttled:
    """A post that writes a file, whole or not at all."""

    def send(told: dict[str, tuple[Any, ...]]) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(told), "utf-8")
        os.replace(temporary, path)

    return Throttled(send)


def posted_in(folder: Path) -> Posted:
    """What was posted to the files of a folder; of two that tell of one job the later."""
    found: dict[str, Sequence[Any]] = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            for name, each in json.loads(path.read_text("utf-8")).items():
                if name not in found or each[3] > found[name][3]:
                    found[name] = each
    return found


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
