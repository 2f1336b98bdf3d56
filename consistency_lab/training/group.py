"""The processes that train one model together: how they are joined, and what they send to each other."""

from __future__ import annotations

import contextlib
import datetime
import io
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from consistency_lab.devices import resolve_device
from consistency_lab.errors import UserError
from consistency_lab.training.processes import started

_PATIENCE = datetime.timedelta(days=7)  # the others wait while the first validates, saves, or waits for a lock


class Group(ABC):
    """Processes that train together.

    Attributes:
        count: how many.
        index: which of them this is; 0 leads.
    """

    count: int
    index: int

    @abstractmethod
    def tell(self, word: int, content: Any = None) -> None:
        """Tell all others something; tensors arrive on the CPU. The first process only."""

    @abstractmethod
    def hear(self) -> tuple[int, Any]:
        """Wait for what the first process tells."""

    @abstractmethod
    def gathered(self, value: Any) -> list[Any]:
        """What each process has given."""

    @abstractmethod
    def add(self, values: Tensor) -> None:
        """Replace a tensor, in place, by the sum of those of all processes: the same bits in each."""


class Joined(Group):
    """The processes of a launcher, joined by accelerate: tensors are summed on their devices, words go from host to host."""

    def __init__(self) -> None:
        self.count, self.index = started()
        self.words: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def tell(self, word: int, content: Any = None) -> None:
        buffer = io.BytesIO()
        if content is not None:
            torch.save(content, buffer)
        with _together():
            dist.broadcast(torch.tensor([word, buffer.tell()], device="cpu"), 0, group=self.words)
            if content is not None:
                dist.broadcast(torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8), 0, group=self.words)

    def hear(self) -> tuple[int, Any]:
        with _together():
            head = torch.empty(2, dtype=torch.int64, device="cpu")
            dist.broadcast(head, 0, group=self.words)
            word, length = head.tolist()
            if not length:
                return word, None
            body = torch.empty(length, dtype=torch.uint8, device="cpu")
            dist.broadcast(body, 0, group=self.words)
        return word, torch.load(io.BytesIO(body.numpy().tobytes()), map_location="cpu", weights_only=True)

    def gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.count
        with _together():
            dist.all_gather_object(found, value, group=self.words)
        return found

    def add(self, values: Tensor) -> None:
        with _together():
            dist.all_reduce(values)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Something that all processes do at once. Raises `UserError` where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        said = textwrap.shorten(str(error), 100, placeholder=" ...")
        raise UserError(
            f"another of the processes that train this model has ended ({said}); the same command resumes from the last checkpoint."
        ) from error


@cache
def joined() -> Group:
    """The processes that were started with this one; `shared_device` has joined them."""
    return Joined()


def shared_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this process: as `resolve_device`; of several processes each has a GPU of its own, or all are on the CPU.

    Raises:
        UserError: as `resolve_device`; of several processes also: accelerate is not installed, a number of a GPU was given, or they
            cannot be joined.
    """
    if (count := started()[0]) == 1:
        return resolve_device(name)
    try:
        from accelerate import PartialState
    except ImportError:
        raise UserError(
            f"{count} processes train one model through accelerate, which is not installed: pip install accelerate."
        ) from None
    asked = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name is None else _named(name)
    try:
        state = PartialState(cpu=asked.type == "cpu")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE says that there are {count} processes, and they cannot be joined ({str(error).splitlines()[0]}); start them with "
            "accelerate launch or torchrun."
        ) from error
    device = torch.device(state.device)
    if state.num_processes != count or device.type != asked.type or asked.index not in (None, device.index):
        raise UserError(
            f"this process is number {state.process_index} of {state.num_processes} and was given the device {str(device)!r}, not "
            f"{str(name)!r}; leave device out, so that each of several processes has a GPU of its own, or write device='cpu'."
        )
    return device


def _named(name: str | torch.device) -> torch.device:
    """The device of a name, looked at no further: a process makes no room for itself on the first GPU."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError):
        return resolve_device(name)
