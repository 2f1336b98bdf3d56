"""Jobs in processes of this machine, each worker with its share of the threads and a GPU where there are some."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from consistency_lab.progress import current_board, file_post, posted_in, posting_to
from consistency_lab.studies.executors import Deaths, Executor, Say

_process: dict[str, Any] = {}  # of a worker: what all of its jobs share, sent once


def place_of(worker: int, device: torch.device) -> torch.device:
    """The device of a worker, counted from 0: its own GPU while there are enough, else one that it shares; a named device as it is."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", worker % max(1, torch.cuda.device_count()))


class LocalExecutor(Executor):
    """Processes of this machine; a single worker is this process itself, which no other can outlive."""

    def _workers(self, device: torch.device) -> int:
        spread = device.type == "cuda" and device.index is None
        return self.workers or (max(1, torch.cuda.device_count()) if spread else 1)

    def threads(self, device: torch.device) -> int:
        workers = self._workers(device)
        return torch.get_num_threads() if workers == 1 else max(1, (os.cpu_count() or 1) // workers)

    def here(self, jobs: int, device: torch.device) -> bool:
        return self._workers(device) == 1 or jobs < 2

    def run(
        self,
        function: Callable[..., Any],
        jobs: Mapping[str, Sequence[Any]],
        shared: Sequence[Any],
        device: torch.device,
        say: Say = lambda line: None,
    ) -> Generator[tuple[str, Any], None, None]:
        if self.here(len(jobs), device):
            for name, arguments in jobs.items():
                yield name, function(*shared, *arguments, device)
            return
        with _posts() as folder:
            yield from self._side_by_side(function, jobs, shared, device, say, folder)

    def _side_by_side(
        self,
        function: Callable[..., Any],
        jobs: Mapping[str, Sequence[Any]],
        shared: Sequence[Any],
        device: torch.device,
        say: Say,
        folder: Path | None,
    ) -> Generator[tuple[str, Any], None, None]:
        """Args as for `run`; ``folder``: where workers post how far they are."""
        deaths, todo, threads = Deaths(say), deque(jobs), self.threads(device)
        slots = [
            _Slot(tuple(shared), place_of(k, device), threads, None if folder is None else folder / f"{k}.json")
            for k in range(min(self._workers(device), len(jobs)))
        ]
        free, running = deque(slots), dict[Future[Any], tuple[str, _Slot]]()
        try:
            while todo or running:
                while todo and free:
                    name, slot = todo.popleft(), free.popleft()
                    running[slot.submit(function, jobs[name])] = (name, slot)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name, slot = running.pop(future)
                    free.append(slot)
                    if isinstance(future.exception(), BrokenProcessPool):
                        deaths.note(name, "killed, or out of memory")
                        slot.end()
                        todo.appendleft(name)
                    else:
                        yield name, future.result()
        finally:
            for slot in slots:
                slot.end()


class _Slot:
    """Room for one worker: a process that does one job after another, and another process once that has died.

    A pool of one, since a pool that loses one of its processes ends them all.
    """

    def __init__(self, shared: tuple[Any, ...], place: torch.device, threads: int, posts: Path | None):
        self._begin = (shared, place, threads, posts)
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Future[Any]:
        try:
            return self._alive().submit(_do, function, arguments)
        except BrokenProcessPool:  # it died between two jobs
            self.end()
            return self._alive().submit(_do, function, arguments)

    def end(self) -> None:
        """Wait for the job under way, if there is one, and end the process."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _alive(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Forked children would share the locks of torch's thread pools; spawned ones begin clean.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=self._begin)
        return self._pool


def _begin(shared: tuple[Any, ...], place: torch.device, threads: int, posts: Path | None) -> None:
    end_with_parent()
    torch.set_num_threads(threads)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    _process.update(shared=shared, place=place, post=None if posts is None else file_post(posts))


def _do(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    with posting_to(_process["post"]):
        return function(*_process["shared"], *arguments, _process["place"])


@contextlib.contextmanager
def _posts() -> Iterator[Path | None]:
    """A folder for the files in which workers say how far they are, if anybody looks; the board reads it."""
    board = current_board()
    if board is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="consistency-lab-"))
    try:
        with board.listening(lambda: posted_in(folder)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended; without a parent of ours nothing is done."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
