"""Jobs on a Ray cluster. Ray places them; what it says of lost workers and machines is answered here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from consistency_lab.errors import UserError
from consistency_lab.progress import Throttled, current_board, posting_to
from consistency_lab.studies.executors import Deaths, Executor, Say


class RayExecutor(Executor):
    """Tasks of a Ray cluster.

    Its machines have the package installed, and see the store: a folder that all of them have under one path, or a URL.

    Args:
        workers: jobs at a time, an equal share of the cluster's CPUs each; by default one CPU each and as many as there is room for.
        address: of the cluster, see `ray.init`; without one, Ray is started on this machine and ended afterwards. A connection that this
            process has already is used as it is.
        gpus_per_worker: that a job on a GPU asks for, such as .5 for two jobs a GPU; 1 by default.

    Raises:
        UserError: Ray is not installed, a share of a GPU that is none.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, gpus_per_worker: float | None = None):
        super().__init__(workers)
        if gpus_per_worker is not None and not (
            0 < gpus_per_worker <= 1 or gpus_per_worker == int(gpus_per_worker) > 0
        ):
            raise UserError(f"gpus_per_worker is a share of a GPU, or a whole number of them, not {gpus_per_worker!r}.")
        self.address, self.gpus_per_worker = address, gpus_per_worker
        _ray()

    def threads(self, device: torch.device) -> int:
        if self.workers is None:
            return 1
        with self._connected() as ray:
            return self._cpus(ray)

    def here(self, jobs: int, device: torch.device) -> bool:
        return False

    def run(
        self,
        function: Callable[..., Any],
        jobs: Mapping[str, Sequence[Any]],
        shared: Sequence[Any],
        device: torch.device,
        say: Say = lambda line: None,
    ) -> Generator[tuple[str, Any], None, None]:
        if not jobs:
            return
        with self._connected() as ray, _posts(ray) as box:
            cpus, gpus = self._cpus(ray), self._gpus(device)
            _check_room(ray, cpus, gpus)
            # Ray's own retries are off: it would not say that it does one.
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_do)
            deaths, todo, running = Deaths(say), deque(jobs), dict[Any, str]()
            sent = ray.put(tuple(shared))
            try:
                while todo or running:
                    while todo and (self.workers is None or len(running) < self.workers):
                        name = todo.popleft()
                        running[task.remote(function, sent, jobs[name], device.type, cpus, box)] = name
                    (done, *_), _ = ray.wait(list(running))
                    name = running.pop(done)
                    try:
                        found = ray.get(done)
                    except ray.exceptions.RayTaskError as error:  # the job's own
                        ray.wait(list(running), num_returns=len(running)) if running else None
                        raise error.cause or error from None
                    except ray.exceptions.RayError as error:
                        deaths.note(name, _reason(error))
                        todo.append(name)
                    else:
                        yield name, found
            except BaseException:
                for each in running:
                    ray.cancel(each)  # an interrupt, as Ctrl-C is: the step under way is ended and stored
                ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE) if running else None
                raise

    def _gpus(self, device: torch.device) -> float:
        if device.type == "cuda":
            return 1 if self.gpus_per_worker is None else self.gpus_per_worker
        if self.gpus_per_worker is not None:
            raise UserError(f"gpus_per_worker={self.gpus_per_worker:g} says nothing of jobs on the {device.type}.")
        return 0

    def _cpus(self, ray: Any) -> int:
        """Of each job: an equal share of the cluster's, and no more than its smallest machine has."""
        if self.workers is None:
            return 1
        each = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        return max(1, min(sum(each) // self.workers, min((n for n in each if n), default=1)))

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        ray = _ray()
        if ray.is_initialized():
            yield ray
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        local = {"address": "local", "include_dashboard": False} if self.address is None else {"address": self.address}
        try:
            ray.init(**local, log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray has many
            raise UserError(f"no Ray cluster answers at {self.address or 'this machine'}: {_reason(error)}.") from error
        try:
            yield ray
        finally:
            ray.shutdown()


_BOX = 5.0  # seconds for what was posted to be read
_PATIENCE = 60.0  # seconds for jobs that are stopped to store what they have


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("executor='ray' needs Ray: pip install ray.") from None
    return ray


def _check_room(ray: Any, cpus: int, gpus: float) -> None:
    """Ray waits for ever for a machine that is not there."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise UserError(
            f"no machine of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs, which a job asks for; add one, or ask for less."
        )


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class _Box:
    """An actor that keeps what jobs have posted."""

    def __init__(self) -> None:
        self.posted: dict[str, tuple[Any, ...]] = {}

    def put(self, told: dict[str, tuple[Any, ...]]) -> None:
        self.posted |= told

    def all(self) -> dict[str, tuple[Any, ...]]:
        return self.posted


@contextmanager
def _posts(ray: Any) -> Iterator[Any]:
    """An actor to which jobs say how far they are, if anybody looks; the board reads it."""
    board = current_board()
    if board is None:
        yield None
        return
    box = ray.remote(num_cpus=0)(_Box).remote()

    def read() -> dict[str, tuple[Any, ...]]:
        try:
            found: dict[str, tuple[Any, ...]] = ray.get(box.all.remote(), timeout=_BOX)
        except Exception:  # nothing is trained otherwise because nobody can be told of it
            return {}
        return found

    try:
        with board.listening(read):
            yield box
    finally:
        ray.kill(box)


def _do(
    function: Callable[..., Any],
    shared: tuple[Any, ...],
    arguments: Sequence[Any],
    device: str,
    threads: int,
    box: Any,
) -> Any:
    torch.set_num_threads(threads)
    with posting_to(None if box is None else Throttled(box.put.remote)):
        return _done(function, shared, arguments, device)


def _done(function: Callable[..., Any], shared: tuple[Any, ...], arguments: Sequence[Any], device: str) -> Any:
    return function(*shared, *arguments, torch.device(device))  # Ray shows a worker no GPU but its own
