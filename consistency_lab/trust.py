"""Files that are programs are opened only for a caller who says that they are trusted.

The permission comes from the caller, ``trust=True`` or ``--trust``, and holds for one call: no name, address, recipe or result can
give it, since these travel with the files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from consistency_lab.errors import UserError

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@contextlib.contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Within the block, programs may be opened if ``trust`` is True; False takes nothing back that an outer block allows."""
    if not isinstance(trust, bool):
        raise UserError(f"trust is True or False, not {trust!r}.")
    token = _TRUSTED.set(trust or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def check_trust(path: str | os.PathLike[str], kind: str, instead: str) -> None:
    """Raise `UserError` for a program whose caller has not said that it is trusted.

    Args:
        path: the file or folder, for the message.
        kind: what it is: "TorchScript".
        instead: what can be done without trust, as what follows "or ".
    """
    if not _TRUSTED.get():
        raise UserError(
            f"{path} is {kind}, a program that may read and write files when it runs; say that you trust it (--trust, in Python "
            f"trust=True), or {instead}."
        )
