"""Where things are computed, and with which precision they are measured."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch

from consistency_lab.errors import UserError


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
            f"the device {str(name)!r} cannot be used here; use 'cpu', or 'cuda' on a machine with a GPU and its driver."
        ) from None
    return device


@contextmanager
def plain_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU unless they are told otherwise, whatever the caller has made torch's defaults.

    A spec says float32: `torch.set_default_dtype` or `torch.set_default_device` of a user's own code must not train another model
    under its hash. The caller's defaults come back afterwards. Also a decorator, for functions that are no generators.
    """
    before = torch.get_default_dtype()
    # The mode that names a device costs a little at every call of torch: it is entered where it changes something.
    elsewhere = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def keep_freed() -> None:
    """Let the C library keep up to 64 MB of what is freed, for the next tensors, rather than hand it back at every step of a loop.

    The pages of activations that come and go otherwise cost up to a sixth of the time of sampling with a small network. glibc raises what
    it keeps to twice the largest block that it has seen freed, of at most 32 MB: so it is shown one, of which nothing is touched.
    Elsewhere this does nothing. `hand_back` hands all back.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


@contextmanager
def measuring() -> Iterator[None]:
    """Full float32 while something is measured: TF32 off, deterministic cuDNN kernels. The old settings come back afterwards."""
    keep_freed()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def hand_back() -> None:
    """Hand freed memory back to the system: glibc keeps it, and where large arrays come and go that adds up. Nothing is done elsewhere."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
