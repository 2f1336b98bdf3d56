"""A local folder and its copy on shared storage, through fsspec: fetched whole, sent file by file as the folder changes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from consistency_lab.errors import StoreError
from consistency_lab.store.atomic import atomic_path

_TEMPORARY = ".tmp-"
_OWNER = ".owner"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # two letters or more: "C:/" is a drive
_FLAT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"}  # object stores
_SECONDS = 5.0  # between two looks at the local folder
_logger = logging.getLogger(__name__)


def url_of(place: object) -> str | None:
    """The URL that a place is, such as ``s3://bucket/runs``, also where `Path` has taken a slash from it; None for a path."""
    text = os.fspath(place) if isinstance(place, str | os.PathLike) else ""
    found = _URL.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    root = "/" if found[1] == "file" else ""
    return f"{found[1]}://{root}{text[found.end() :]}".rstrip("/")


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path of the URL on it. Raises `StoreError` for one that fsspec does not know, or cannot open."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise StoreError(f"{url} needs a package that is not there ({error}); install it with pip.") from None
    except ValueError as error:
        raise StoreError(
            f"{url} is no place that fsspec knows ({error}); write for example s3://bucket/runs."
        ) from None


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """What a file system raises, in one sentence. Each has errors of its own."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"cannot reach the shared store {url} ({reason}); look at its address and your rights."
        ) from error


def make_folder(files: Any, path: str) -> None:
    """Make a folder and those above it; nothing is done in an object store, where a bucket of a mistyped name would be made."""
    protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    if not protocols & _FLAT:
        files.makedirs(path, exist_ok=True)


class Mirror:
    """One folder here, and one of the same files there.

    A file there is whole or absent: it is sent under another name and moved. Whoever fetched last may send (`claim`); a machine that was
    taken for dead and lives finds another's mark and is refused, so that no two mix what they send.

    Args:
        url: of the shared folder, for messages.
        files: the file system.
        there: the folder's path on it.
        here: the local folder.
        first: the file without which the others say nothing: sent before them.
        growing: the file that is added to: what is sent of it is never older than the states beside it.
        last: the file that says that all is there: never sent by `send`.
    """

    def __init__(self, url: str, files: Any, there: str, here: Path, *, first: str, growing: str, last: str):
        self.url, self.files, self.there, self.here = url, files, there, here
        self.first, self.growing, self.last = first, growing, last
        self._sent: dict[str, tuple[int, int]] = {}
        self._mark = b""
        self._sending = threading.Lock()

    def names(self) -> set[str]:
        """Relative names of the files there."""
        with reaching(self.url):
            self.files.invalidate_cache()
            try:
                found = [str(path).removeprefix(f"{self.there}/") for path in self.files.find(self.there)]
            except FileNotFoundError:
                return set()
        return {name for name in found if not Path(name).name.startswith(".")}

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with reaching(self.url):
            self.files.invalidate_cache()
            return bool(self.files.exists(f"{self.there}/{name}"))

    def size(self, name: str) -> int:
        """Bytes of a file that is there."""
        with reaching(self.url):
            return int(self.files.size(f"{self.there}/{name}"))

    def fetch(self, *names: str) -> None:
        """Copy files from there to here: those named, or all, after which the folder here holds nothing else."""
        wanted = set(names) or self.names()
        for name in sorted(wanted, key=lambda name: (name == self.last, name)):
            with atomic_path(self.here / name) as temporary, reaching(self.url):
                self.files.get_file(f"{self.there}/{name}", str(temporary))
        if not names:
            for name in self._local() - wanted:
                (self.here / name).unlink(missing_ok=True)

    def claim(self) -> None:
        """From now on this object sends, and no other."""
        self._sent.clear()
        self._mark = secrets.token_hex(12).encode()
        with reaching(self.url):
            make_folder(self.files, self.there)
            self.files.pipe_file(f"{self.there}/{_OWNER}", self._mark)

    def send(self) -> None:
        """Copy what has changed here since the last time.

        A file that holds a state is opened before those that it needs are looked at, and sent after them: whenever a machine dies, the log
        there reaches as far as the checkpoint there.

        Raises:
            StoreError: the place cannot be reached, or another machine has gone on with the folder.
        """
        with self._sending, contextlib.ExitStack() as stack, reaching(self.url):
            held: dict[str, BinaryIO] = {}
            for name in sorted(self._local()):
                if "/" not in name and name not in (self.first, self.growing):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        held[name] = stack.enter_context(open(self.here / name, "rb"))
            for name in sorted(self._local() - set(held), key=lambda name: (name != self.first, name)):
                with contextlib.suppress(FileNotFoundError), open(self.here / name, "rb") as file:
                    self._put(name, file)
            for name, state in held.items():
                self._put(name, state)

    def declare(self, content: str) -> None:
        """Write the last file there, after everything else. Raises as `send`."""
        self.send()
        with reaching(self.url):
            self._check_mine()
            self._move_there(self.last, lambda path: self.files.pipe_file(path, content.encode()))

    def tidy(self) -> None:
        """Remove there what is no longer here, and the mark."""
        for name in self.names() - self._local() - {self.last}:
            with reaching(self.url):
                self.files.rm_file(f"{self.there}/{name}")
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            self.files.rm_file(f"{self.there}/{_OWNER}")

    def remove(self) -> None:
        """Remove the folder there; what declares it finished goes first."""
        if self.has(self.last):
            with reaching(self.url):
                self.files.rm_file(f"{self.there}/{self.last}")
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            self.files.invalidate_cache()
            # One by one: fsspec takes the name of what is removed recursively for a pattern.
            found = self.files.find(self.there, withdirs=True, detail=True)
            for path, facts in sorted(found.items(), reverse=True):
                if facts["type"] == "file":
                    self.files.rm_file(path)
            folders = [path for path, facts in found.items() if facts["type"] == "directory"]
            for path in sorted({self.there, *folders}, reverse=True):
                with contextlib.suppress(Exception):  # where names alone make folders there is none left
                    self.files.rmdir(path)

    def move(self, folder: str, names: Iterable[str]) -> str:
        """Move the folder there into another one beside it, under the first of those names that is free, which is returned.

        What declares it finished goes first.
        """
        with reaching(self.url):
            self.files.invalidate_cache()
            beside = f"{self.there.rpartition('/')[0]}/{folder}"
            name = next(name for name in names if not self.files.exists(f"{beside}/{name}"))
            for own in sorted(self.names(), key=lambda own: (own != self.last, own)):
                target = f"{beside}/{name}/{own}"
                make_folder(self.files, target.rpartition("/")[0])
                _move(self.files, f"{self.there}/{own}", target)
        self.remove()
        return name

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Send in the background while the block writes, and once more at its end; what fails in between is tried again."""
        ended = threading.Event()

        def follow() -> None:
            told = ""
            while not ended.wait(_SECONDS):
                try:
                    self.send()
                    told = ""
                except StoreError as error:
                    if str(error) != told:
                        _logger.warning("%s The run goes on here.", error)
                    told = str(error)

        thread = threading.Thread(target=follow, name="mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.send()

    def _local(self) -> set[str]:
        files = (path for path in self.here.rglob("*") if not path.name.startswith(".") and path.is_file())
        return {path.relative_to(self.here).as_posix() for path in files} - {self.last}

    def _put(self, name: str, file: BinaryIO) -> None:
        now = os.fstat(file.fileno())
        if self._sent.get(name) == (now.st_mtime_ns, now.st_size):
            return
        self._check_mine()

        def write(path: str) -> None:
            with self.files.open(path, "wb") as out:
                shutil.copyfileobj(file, out, 2**20)

        self._move_there(name, write)
        self._sent[name] = (now.st_mtime_ns, now.st_size)

    def _move_there(self, name: str, write: Any) -> None:
        target = f"{self.there}/{name}"
        folder = target.rpartition("/")[0]
        temporary = f"{folder}/{_TEMPORARY}{secrets.token_hex(6)}"
        make_folder(self.files, folder)
        write(temporary)
        _move(self.files, temporary, target)

    def _check_mine(self) -> None:
        try:
            mark = self.files.cat_file(f"{self.there}/{_OWNER}")
        except FileNotFoundError:
            mark = b""
        if mark != self._mark:
            raise StoreError(f"another machine has gone on with {self.url}; leave the run to it, or stop it first.")


def _move(files: Any, path: str, target: str) -> None:
    """By the file system's own way, or as a copy. That of fsspec itself takes names for patterns."""
    from fsspec import AbstractFileSystem

    if type(files).mv is not AbstractFileSystem.mv:
        files.mv(path, target)
        return
    files.cp_file(path, target)
    files.rm_file(path)
