"""Files that are whole or absent: written under a temporary name beside the target, flushed, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from consistency_lab.errors import StoreError

_REFUSED, _LONGEST = '/\\<>:"|?*', 150  # characters, and bytes; endings are added
_TEMPORARY = ".tmp-"
_LEFT = re.compile(re.escape(_TEMPORARY) + r"[0-9a-f]+(\..*)?")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    The temporary name keeps the suffix, since many writers choose their format by it. If the block fails the temporary
    file is removed and whatever stood at ``path`` stays. A kill leaves at most a ``.tmp-`` file, which `sweep` removes.
    Folders on the way are made.

    Raises:
        StoreError: the folder or file cannot be written.
    """
    target = as_path(path)
    if not target.name or os.path.isdir(target):  # which a name too long is not
        raise StoreError(f"{target} is a folder; name a file in it.")
    temporary = target.with_name(f"{_TEMPORARY}{secrets.token_hex(6)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        flush_folder(target.parent)
    except OSError as error:
        raise cannot("write", target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def atomic_write(path: str | os.PathLike[str], content: bytes | memoryview | str) -> None:
    """Write a whole file or none; text as UTF-8, lone surrogates as ``\\udcff``. Raises `StoreError` if ``path`` cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def as_path(path: object) -> Path:
    """A path that was given as text or as one. Raises `StoreError` for anything else."""
    if not isinstance(path, str | os.PathLike):
        raise StoreError(f"a path is text, not a {type(path).__name__}; write for example 'results/mine.nc'.")
    return Path(path)


def file_name(text: str) -> str:
    """A name, of whatever characters, as that of one file in a folder: no separators, no leading dot, nothing that a file system refuses.

    >>> file_name("../../escape"), file_name("unet-s0 (lr=0.001)")
    ('_.._escape', 'unet-s0 (lr=0.001)')
    """
    plain = "".join(letter if letter.isprintable() and letter not in _REFUSED else "_" for letter in text)
    plain = plain.strip(" ").lstrip(".")
    if len(plain.encode()) > _LONGEST:
        digest = hashlib.sha256(plain.encode()).hexdigest()[:12]
        plain = f"{plain.encode()[: _LONGEST - 13].decode(errors='ignore')}-{digest}"
    return plain or "unnamed"


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder and below. Only for a folder in which nobody else is writing."""
    for left in folder.rglob(f"{_TEMPORARY}*"):
        if is_temporary(left):
            with contextlib.suppress(OSError):
                left.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a writer has begun (`atomic_path`), and not one that a user has called nearly so."""
    return _LEFT.fullmatch(path.name) is not None


def ensure_writable(folder: str | os.PathLike[str]) -> None:
    """Check, without leaving anything behind, that files can be made in ``folder``, or that ``folder`` can be made.

    Permission bits do not tell (the superuser, read-only mounts, a file in the way), so a nameless file is really made
    in the nearest folder that exists.

    Raises:
        StoreError: nothing can be written there.
    """
    wanted = Path(folder)
    try:
        nearest = next(place for place in (wanted.absolute(), *wanted.absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise cannot("write to", wanted, error) from error


def cannot(verb: str, path: Path, error: OSError) -> StoreError:
    """The sentence for an operating system's refusal."""
    return StoreError(
        f"cannot {verb} {path} ({(error.strerror or str(error)).lower()}); choose a place that is writable."
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    """The sentence for a file that is there and cannot be read just now, which says nothing of what it holds."""
    return StoreError(
        f"cannot read {path} ({(error.strerror or str(error)).lower()}); nothing was changed: mend that, and try again."
    )


def is_file(path: Path) -> bool:
    """Whether there is such a file. Raises `StoreError` where that cannot be told, which is not the same as no."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name with a NUL
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise unreadable(path, error) from None


def flush_folder(folder: Path) -> None:
    """Make a new name in a folder durable, where the platform lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
