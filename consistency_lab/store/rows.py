"""A file of rows that several processes write to: one JSON object a line, appended under a lock, so that git can show what was added."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.inputs import check_file
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import as_path, cannot, flush_folder, unreadable
from consistency_lab.store.checksums import KEY, checked, with_checksum
from consistency_lab.store.migration import migrated_values

_PATIENCE = 60.0  # seconds; a row is appended in milliseconds
_logger = logging.getLogger(__name__)


class RowFile:
    """Rows by their ``key``, as the file has them.

    Each writer takes the lock, reads what others have written, and adds its line at the end: no row is lost, and none stands there twice.
    What a killed writer has left of a line is cut off by the next one. Lines carry their checksum (`checksums`); those of earlier versions,
    which have none, are read too, with the names of this version (`migration`).

    The lock is `filelock.FileLock` on ``.NAME.lock`` beside the file: ``flock`` of the operating system, which ends with the process, holds
    between the machines that share an NFS (Linux 2.6.12 or later) or SMB disk, and needs Lustre mounted with ``-o flock``. Where a disk has
    none, filelock makes a file in its stead, which is as exclusive, but may be left behind by a killed writer: the others wait a minute
    and say which file it is. Readers take no lock. A line is on the disk when `append` returns.

    Args:
        path: of the file; made with its first row.

    Attributes:
        rows: by key, in the file's order; of two lines with one key, which only a merge can leave, the first counts.
        repeated, unsummed: how many lines have the key of an earlier one; how many have no checksum.
        torn: whether the file ended within a line when it was read last.

    Raises:
        StoreError: the file cannot be read. DamagedError: a line is no row, or not the row that was written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = as_path(path)
        self._state: tuple[int, ...] | None = None
        self._forget()
        self.refresh()

    def refresh(self) -> None:
        """Read what others have written since, if they have. Raises as the class does."""
        check_file(self.path)
        try:
            with open(self.path, "rb") as file:
                known = os.fstat(file.fileno())
                state = (known.st_ino, known.st_size, known.st_mtime_ns)
                if state != self._state:
                    self._read(file.read())
                    self._state = state
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise unreadable(self.path, error) from None

    def append(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add a row, unless there is one of its ``key`` by now; the row that the file has of it then.

        Raises:
            StoreError: the file cannot be written, or the lock is not let go; what the file held is as it was.
        """
        made = json.loads(json.dumps(row, sort_keys=True))
        line = json.dumps(with_checksum(made), sort_keys=True).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(), open(self.path, "ab+", buffering=0) as file:
                file.seek(0)
                self._read(file.read())
                if made["key"] not in self.rows:
                    self._write(file.fileno(), line)
                    file.seek(0)
                    self._read(file.read())
        except OSError as error:
            raise cannot("write", self.path, error) from error
        return self.rows[made["key"]]

    def _forget(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.repeated = self.unsummed = self._lines = 0
        self.torn = self._open_end = False
        self._content, self._state = b"", None

    def _read(self, content: bytes) -> None:
        """Take in the whole content of the file, of which the beginning may be known."""
        if content == self._content:
            self.torn = False
            return
        if not content.startswith(self._content + b"\n" * self._open_end):
            self._forget()
        *lines, last = content[len(self._content) :].split(b"\n")
        try:
            for line in lines[self._open_end :]:  # what ends the last line that is known is no line
                self._take(line)
            self.torn = self._open_end = False
            if last.strip():
                self._end(last)
        except DamagedError:
            self._forget()
            raise
        self._content = content if self._open_end else content[: len(content) - len(last)]

    def _end(self, last: bytes) -> None:
        """Take in what stands behind the last newline: a row without its newline, the beginning of one, or damage."""
        try:
            parsed(last)
        except ValueError:
            self.torn = last.startswith(b"{") and last.isascii() and last.decode().isprintable()
            if not self.torn:
                raise self._damaged(self._lines + 1) from None
        else:
            self._take(last)
            self._open_end = True

    def _take(self, line: bytes) -> None:
        self._lines += 1
        if not line.strip():
            return
        try:
            row = parsed(line)
            key, values = row["key"], row["values"]
            if not set(row) <= _KNOWN or not isinstance(key, str):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise self._damaged(self._lines) from None
        self.unsummed += KEY not in row
        plain = checked(row, f"line {self._lines} of {self.path}", _REMEDY)
        self.repeated += key in self.rows
        self.rows.setdefault(key, {**plain, "values": migrated_values(values)})

    def _damaged(self, line: int) -> DamagedError:
        return DamagedError(
            f"{self.path} is damaged at line {line}, or is not a file of rows (one JSON object a line); {_REMEDY}."
        )

    def _write(self, file: int, line: bytes) -> None:
        """Add a line behind the last whole one, or nothing."""
        end = os.fstat(file).st_size
        if self.torn:
            _logger.warning("%s ended within a line, which a killed writer has left; it is cut off.", self.path)
            end = len(self._content)
            os.ftruncate(file, end)
        line = b"\n" * self._open_end + line
        try:
            written = 0
            while written < len(line):
                written += os.write(file, line[written:])
            os.fsync(file)
        except BaseException:
            os.ftruncate(file, end)
            raise
        if end == 0:
            flush_folder(self.path.parent)
        self._state = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # here, since only writers need it and it is slow to import

        place = self.path.with_name(f".{self.path.name}.lock")
        try:
            lock = FileLock(place, timeout=_PATIENCE)
            lock.acquire(poll_interval=0.01)
        except (Timeout, NotImplementedError):
            raise StoreError(
                f"another process has held {place} for {_PATIENCE:.0f} seconds; stop it, or remove that file if there is none."
            ) from None
        try:
            yield
        finally:
            lock.release()


_KNOWN = {"key", "spec", "numerics_version", "values", KEY}
_REMEDY = "restore it from a copy, or remove that line, and its row is made again"
