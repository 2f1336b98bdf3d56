"""Where things are computed, and with which precision they are measured."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from consistency_lab.errors import UserError, short
from consistency_lab.switches import SWITCHES

T = TypeVar("T")

PRECISIONS = ("float32", "tf32", "bfloat16")
"""What a network is computed in: float32 throughout; TF32 in a GPU's products; autocast to bfloat16, with weights in float32."""


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name; without one, the GPU where there is one and the CPU where there is not.

    Raises:
        UserError: the name means nothing to torch, or the device is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise UserError(
            f"the device {short(str(name))} cannot be used here; use 'cpu', or 'cuda' on a machine with a GPU and its driver."
        ) from None
    return device


def machine_name(device: torch.device) -> str:
    """What computes there, for times that are to be compared: the GPU's name; the processor's with the threads that torch has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, threads: {torch.get_num_threads()}"


def processor_name() -> str:
    """What the processor calls itself; where that is not known, its architecture."""
    info = Path("/proc/cpuinfo")  # Linux alone has it, and platform knows no more than the architecture there
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def sent(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on a device, to which it is copied without the host waiting: by way of page-locked memory, which torch keeps until then.

    A copy to the CPU is waited for, since its numbers are read.
    """
    here = tensor.device.type == "cpu"
    if here and torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=here)


def places(numbers: Sequence[int] | np.ndarray, device: torch.device) -> torch.Tensor:
    """Places along an axis of a tensor on that device, as an index ``(N,)``: torch would wait for the copy of a list."""
    return sent(torch.tensor(np.asarray(numbers, dtype=np.int64), device="cpu"), device)


def at_a_time(cached: int, device: torch.device) -> int:
    """How many values are worked on at a time: as many as stay in a processor's cache, and more on a GPU, which has to be kept busy."""
    return cached if device.type == "cpu" else 16 * cached


@contextmanager
def plain_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU unless they are told otherwise, whatever the caller has made torch's defaults.

    A spec says float32: `torch.set_default_dtype` or `torch.set_default_device` of a user's own code must not train another model
    under its hash. The caller's defaults come back afterwards: the type of numbers, which all threads have in common, once the last block
    of any of them is left. Also a decorator, for functions that are no generators.
    """
    # The mode that names a device costs a little at every call of torch: it is entered where it changes something.
    elsewhere = torch.get_default_device().type != "cpu"
    with _DEFAULTS:
        mine = [torch.get_default_dtype()]
        _found.append(mine)
        torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        with _DEFAULTS:
            place = next(k for k, each in enumerate(_found) if each is mine)
            _found.pop(place)
            if place == len(_found):
                torch.set_default_dtype(mine[0])
            else:  # another thread is still inside, and entered later: it puts back what was found here
                _found[place][:] = mine


_DEFAULTS = threading.RLock()
_found: list[
    list[torch.dtype]
] = []  # by the blocks of `plain_defaults` that are open: the default type when each was entered

_RANDOM_STATE = threading.RLock()


@contextmanager
def random_state(seed: int | None = None) -> Iterator[None]:
    """torch's global random state of the CPU may be drawn from inside, from that seed on; afterwards it is what it was.

    For code that cannot be given a generator, such as the layers of torch when they are made. There is one such state for all threads, so
    one thread at a time is inside; one that draws from it elsewhere meanwhile, unasked, still disturbs both.
    """
    # The default CPU generator is seeded directly: torch.manual_seed would reset the generators of every GPU as well.
    with _RANDOM_STATE, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


def keep_freed() -> None:
    """Let the C library keep up to 64 MB of what is freed, for the next tensors, rather than hand it back at every step of a loop.

    The pages of activations that come and go otherwise cost up to a sixth of the time of sampling with a small network. glibc raises what
    it keeps to twice the largest block that it has seen freed, of at most 32 MB: so it is shown one, of which nothing is touched.
    Elsewhere this does nothing. `hand_back` hands all back.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


@contextmanager
def measuring() -> Iterator[None]:
    """Full float32 while something is measured: no TF32 or bfloat16 inside products, deterministic cuDNN kernels.

    The old settings come back when no thread measures or trains any longer; one that wants TF32 waits for those that do not, and the
    other way round. A generator must not yield inside: its caller would go on under these settings for as long as it holds the generator
    (`while_running`).
    """
    keep_freed()
    with SWITCHES.block():
        yield


@contextmanager
def training_in(precision: str) -> Iterator[None]:
    """A step of training, backward pass and optimizer included, in the precision that its settings say, whatever the caller has set.

    So a spec decides the bits: products are in full float32, or in TF32 where that was asked for, and cuDNN's kernels are deterministic.
    What of bfloat16 is autocast is up to the loop.
    """
    with SWITCHES.block(tf32=precision == "tf32"):
        yield


@contextmanager
def evaluating_in(precision: str, device: torch.device) -> Iterator[None]:
    """A network is evaluated in that precision, one of `PRECISIONS`; inside `measuring`.

    Raises:
        UserError: TF32 on the CPU.
    """
    check_precision(precision, device)
    half = precision == "bfloat16"
    with (
        torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext(),
        SWITCHES.block(tf32=True) if precision == "tf32" else nullcontext(),
    ):
        yield


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UserError` for TF32 on the CPU, which has none: what is recorded is what was computed."""
    if precision == "tf32" and device.type == "cpu":
        raise UserError("precision 'tf32' is of NVIDIA GPUs; on the CPU choose 'float32' or 'bfloat16'.")


def while_running(context: Callable[[], AbstractContextManager[Any]], steps: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, each computed inside a new context that is left before the item is handed over."""
    while True:
        with context():
            try:
                item = next(steps)
            except StopIteration:
                return
        yield item


def hand_back() -> None:
    """Hand freed memory back to the system: glibc keeps it, and where large arrays come and go that adds up. Nothing is done elsewhere."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
