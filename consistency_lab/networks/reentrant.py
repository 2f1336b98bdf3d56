"""Checkpointing in a network of a user's: what the reentrant kind cannot differentiate, said in one sentence, and where it is at work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from consistency_lab.errors import UserError

_UNDIFFERENTIATED = (
    "None of the inputs have requires_grad=True"  # torch's warning; what is inside then gets no gradient at all
)
_REFUSALS = (
    "use_reentrant=True",
    "Checkpointing is not compatible with .grad()",
)  # of torch 2.9 and of those before it


@contextmanager
def differentiating() -> Iterator[None]:
    """Gradients of a network are taken inside.

    Raises:
        UserError: the network uses ``torch.utils.checkpoint(..., use_reentrant=True)``, and torch has no gradients for it here: none in
            the weights that work on the images themselves, which ask for none, and none that `torch.autograd.grad` could take.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", _UNDIFFERENTIATED)
        try:
            yield
        except (RuntimeError, UserWarning) as error:
            if not any(text in str(error) for text in (_UNDIFFERENTIATED, *_REFUSALS)):
                raise
            raise UserError(
                "the network uses torch.utils.checkpoint with use_reentrant=True, through which these gradients cannot be taken; "
                "call it with use_reentrant=False, which gives the same numbers."
            ) from error


def checkpointing() -> bool:
    """Whether what layers save for the backward pass goes through hooks: a checkpointed layer is computed again then, by torch's own
    functions, and must have saved what these save."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
