"""Errors that are the user's to mend: one clear sentence, exit status 2 on the command line."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong and what to do."""


class StoreError(UserError):
    """A file or folder of the store that cannot be read, written or trusted."""


class HeldError(StoreError):
    """A run that another process is writing."""


class DamagedError(StoreError):
    """A file that can be read and does not hold what was written: cut short, changed, or missing from a finished run."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that nobody has registered: what exists, and the nearest name."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Whatever is found wrong in the block with what a file says, in a sentence that names the file."""
    try:
        with explained(f"{path} cannot be used"):
            yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever other people's code raises in the block, as a `UserError` of one sentence; ``what`` could not be done."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # an option that does not fit raises whatever the first line that trips over it does
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".;")
        raise UserError(f"{what}: {reason}.") from error
