"""Errors that are the user's to mend: one clear sentence, exit status 2 on the command line."""

from __future__ import annotations

import contextlib
import difflib
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong and what to do."""


class StoreError(UserError):
    """A file or folder of the store that cannot be read, written or trusted."""


class HeldError(StoreError):
    """A run that another process is writing."""


class DamagedError(StoreError):
    """A file that can be read and does not hold what was written: cut short, changed, or missing from a finished run."""


class ShapeError(UserError):
    """Images of another shape than the model's."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, elsewhere: Mapping[str, str] | None = None, where: str = ""
) -> UserError:
    """The error for a name that nobody has registered: what exists, and the nearest name.

    Args:
        kind: what it should be the name of.
        name: as it was written.
        known: the names that there are.
        elsewhere: what others call it -> the name here.
        where: the names are known, where that is not clear: "in the store runs".
    """
    names = sorted(known)
    ours = (elsewhere or {}).get(name.lower().replace("_", "-"))
    hint = f" It is called {ours!r} here." if ours else _did_you_mean(name, names)
    return UserError(
        f"unknown {kind} {short(name)}.{hint} Known{f' {where}' if where else ''}: {', '.join(names) or 'none'}."
    )


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def nearest_path(path: str | os.PathLike[str]) -> str:
    """For the end of a sentence about a path that is not there: " Did you mean ...?", the nearest name in the last of its folders that is
    there; nothing where none is near.
    """
    whole = Path(path).expanduser()
    for step in (whole, *whole.parents):
        with contextlib.suppress(OSError, ValueError):  # no rights, or a name that is none
            if step.parent.is_dir():
                found = difflib.get_close_matches(step.name, os.listdir(step.parent), n=1, cutoff=0.6)
                near = step.parent / found[0] / whole.relative_to(step) if found else whole
                return f" Did you mean {str(near)!r}?" if near.exists() and near != whole else ""
    return ""


def short(value: object) -> str:
    """A value as a message shows it: of a table of numbers or a tensor its shape, of a long text its beginning and end."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


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
