"""Where many jobs are done: in processes of this machine, or on a Ray cluster. What a job is, an executor does not know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import torch

from consistency_lab.errors import UserError
from consistency_lab.progress import current_board

EXECUTORS = ("local", "ray")
MOST_DEATHS = 5  # of the workers of one job; more is no accident

Say = Callable[[str], None]


class Executor(ABC):
    """Does jobs side by side, in workers that may die.

    Args:
        workers: jobs at a time; an executor has its own default.

    Raises:
        UserError: fewer than one worker, or what is no whole number.
    """

    def __init__(self, workers: int | None = None):
        if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool)):
            raise UserError(f"workers are a whole number, not {workers!r}.")
        if workers is not None and workers < 1:
            raise UserError(f"jobs need at least one worker, not {workers}.")
        self.workers = workers

    @abstractmethod
    def threads(self, device: torch.device) -> int:
        """CPU threads of each job."""

    @abstractmethod
    def here(self, jobs: int, device: torch.device) -> bool:
        """Whether so many jobs are done in this process, one after another."""

    @abstractmethod
    def run(
        self,
        function: Callable[..., Any],
        jobs: Mapping[str, Sequence[Any]],
        shared: Sequence[Any],
        device: torch.device,
        say: Say = lambda line: None,
    ) -> Generator[tuple[str, Any], None, None]:
        """Name and answer of each job, in the order in which they end.

        Where a worker dies (killed, out of memory, its machine gone), its job is begun again in another, which goes on from what is stored;
        `MOST_DEATHS` times at most. A job that raises is not repeated: those under way are ended, none is begun, and its error is raised.

        Args:
            function: ``function(*shared, *arguments, device)``, importable by name; the device is a worker's own.
            jobs: name -> arguments.
            shared: arguments of all jobs, sent to a worker once; on the CPU.
            device: of the jobs; of ``"cuda"`` without a number, each worker takes one, or its share of one.
            say: is told of deaths.

        Raises:
            UserError: a job lost its worker too often; and what a job raises.
        """


def executor_of(
    executor: str | Executor = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus_per_worker: float | None = None,
) -> Executor:
    """The executor of that name.

    Args:
        executor: ``"local"``, ``"ray"``, or one that is there already, which takes no other argument.
        workers: jobs at a time. local: processes, each with an equal share of the CPU's threads; by default one per GPU, and one on a CPU.
            ray: an equal share of the cluster's CPUs each; by default one CPU each, and as many as there is room for.
        address: of a Ray cluster, such as ``"auto"`` or ``"ray://head:10001"``; without one, Ray is started on this machine.
        gpus_per_worker: share of a GPU that a job on Ray asks for; 1 by default.

    Raises:
        UserError: no such executor, an option that it does not have, or Ray is not installed.
    """
    if isinstance(executor, Executor):
        if (workers, address, gpus_per_worker) != (None, None, None):
            raise UserError("an executor that is there already has its workers, address and gpus_per_worker.")
        return executor
    if executor == "ray":
        from consistency_lab.studies.ray_executor import RayExecutor

        return RayExecutor(workers, address, gpus_per_worker)
    if executor != "local":
        raise UserError(f"an executor is one of {', '.join(EXECUTORS)}, not {executor!r}.")
    if (address, gpus_per_worker) != (None, None):
        raise UserError("address and gpus_per_worker are of executor='ray'; local workers share this machine's GPUs.")
    from consistency_lab.studies.local_executor import LocalExecutor

    return LocalExecutor(workers)


class Deaths:
    """Counts the workers that each job has lost, and says so."""

    def __init__(self, say: Say):
        self.say, self._count = say, Counter[str]()

    def note(self, name: str, why: str) -> None:
        """One more. Raises `UserError` if it is one too many."""
        self._count[name] += 1
        if board := current_board():
            board.lost(name)
        if self._count[name] > MOST_DEATHS:
            raise UserError(
                f"{name} lost {self._count[name]} workers ({why}); it may need more memory than there is: take fewer workers at a time."
            )
        self.say(f"{name} lost its worker ({why}); it goes on in another from what it has stored")
