"""Where things are computed, and with which precision they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(
            f"the device {str(name)!r} cannot be used here; use 'cpu', or 'cuda' on a machine with a GPU and its driver."
        ) from None
    return device


@contextmanager
def measuring() -> Iterator[None]:
    """Full float32 while something is measured: TF32 off, deterministic cuDNN kernels. The old settings come back afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
