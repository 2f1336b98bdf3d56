"""One run folder: ``spec.json`` first, then whatever the run writes and its log ``metrics.jsonl``, ``done.json`` last.

It is locked while written and a result only once ``done.json`` is there. Each of these files, and each line of the log, carries its
checksum (`checksums`). Nothing here knows what a model is, and nothing removes what a run has written: a folder that is not to be read any
longer is set aside.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from consistency_lab.errors import DamagedError, HeldError, StoreError
from consistency_lab.inputs import check_file
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import as_path, atomic_write, cannot, is_file, sweep, unreadable
from consistency_lab.store.checksums import KEY, checked, with_checksum
from consistency_lab.store.spec import NUMERICS_VERSION, canonical, content_hash

DONE, LOG, _LOCK = "done.json", "metrics.jsonl", ".lock"
SPEC = "spec.json"
ASIDE = "set-aside"
NO_SPEC = "restore it from a copy, or, if that folder is a run, move it away and run it again"
_FACTS = ("kind", "name", "numerics_version", "hash", "spec")
_POLL = 0.2  # seconds between two looks at a lock


class Run:
    """One piece of work and its folder. Made by `Store.run` or `Run.open`; nothing is written before `begin`.

    Attributes:
        folder: where everything of the run lies; the caller chooses the names of its own files.
        kind, name: what the run is ("model") and what the user calls it; neither tells two specs of a kind apart.
        spec: what was asked for, as plain JSON.
        numerics_version: the `NUMERICS_VERSION` that made it.
        hash: SHA-256 over kind, spec and numerics version (not over the name).
    """

    def __init__(self, folder: Path, kind: str, name: str, spec: Mapping[str, Any], numerics_version: int):
        self.folder, self.kind, self.name, self.numerics_version = folder, kind, name, numerics_version
        self.spec: dict[str, Any] = json.loads(canonical(spec))
        self.hash = content_hash({"kind": kind, "spec": self.spec, "numerics_version": numerics_version})
        self._held = self._summed = False  # of earlier versions there are runs without checksums

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run that lies in a folder. Raises `StoreError` if ``spec.json`` is missing, torn, foreign or edited, or cannot be read."""
        path = as_path(folder) / SPEC
        found = _read_json(path)
        facts = checked(found, path, _REMEDY)
        try:
            run = cls(Path(folder), facts["kind"], facts["name"], facts["spec"], facts["numerics_version"])
            recorded = facts["hash"]
            sound = set(facts) <= set(_FACTS) and isinstance(facts["spec"], dict)
            if not sound or not all(isinstance(facts[key], str) for key in ("kind", "name", "hash")):
                raise KeyError
        except (KeyError, TypeError, StoreError):
            raise DamagedError(f"{path} was not written by consistency_lab; choose another folder.") from None
        if run.hash != recorded:
            raise DamagedError(f"{path} was edited after the run began, so it no longer says what was run; {_REMEDY}.")
        run._summed = KEY in found
        return run

    def __repr__(self) -> str:
        return f"Run({self.kind} {self.name!r}, {self.state}, {self.folder})"

    @property
    def state(self) -> str:
        """``"stale"``, ``"done"`` or ``"unfinished"``."""
        return "stale" if self.stale else "done" if self.done else "unfinished"

    @property
    def done(self) -> bool:
        """Whether the run was finished; without this its folder is not a result. Raises `StoreError` where that cannot be told."""
        return is_file(self.folder / DONE)

    @property
    def stale(self) -> bool:
        """Whether another `NUMERICS_VERSION` made it, so that today's code would give other numbers."""
        return self.numerics_version != NUMERICS_VERSION

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `finish` was given, or None for an unfinished run. Raises `StoreError` if ``done.json`` is damaged."""
        found = self._finished()
        return None if found is None else {key: value for key, value in found.items() if key not in (_LINES, _FILES)}

    @contextlib.contextmanager
    def begin(self, waiting: Callable[[str], None] | None = None) -> Iterator[Run]:
        """Make the folder, lock it, write ``spec.json``; then the block may write. The lock ends with the process.

        Ask `done` inside the block: another process may have finished the run while this one came. A block that
        writes nothing leaves no folder, so a refused input leaves none.

        Args:
            waiting: wait for a process that holds the run, and tell this function so; without it such a run is refused.

        Raises:
            StoreError: the run is stale or held by another process, or its folder cannot be written or is not a run.
        """
        if self.stale:
            raise StoreError(f"{self.folder} was begun by numerics version {self.numerics_version}; start a new run.")
        with self._locked(waiting):
            self._claim()
            self._held = True
            try:
                yield self
            finally:
                self._held = False
                self._leave_nothing_empty()

    def finish(self, summary: Mapping[str, Any], passing: Collection[str] = ()) -> None:
        """Declare the run a result: the last thing that is written. Inside `begin` only.

        ``done.json`` also says which files the run consists of, but for those that are ``passing``, and how long the log is.
        """
        atomic_write(self.folder / DONE, self._declared(summary, passing))

    def _declared(self, summary: Mapping[str, Any], passing: Collection[str]) -> str:
        """The content of ``done.json``."""
        self._check_held()
        written = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        files = sorted(name for name in written if not name.startswith(".") and name not in (SPEC, DONE, *passing))
        facts = {**_plain(summary), _LINES: len(self.records()), _FILES: files}
        return json.dumps(with_checksum(facts, self.hash), indent=2) + "\n"

    def missing(self) -> list[str]:
        """The files that the run had when it was finished and has no longer; none of an unfinished one. Raises `StoreError`."""
        return [name for name in (self._finished() or {}).get(_FILES, ()) if not is_file(self.folder / name)]

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``; it carries its ``"step"``; NaN is allowed. Inside `begin` only."""
        self._check_held()
        if "step" not in record:
            raise ValueError(f"a log record needs its 'step'; got {sorted(record)}")
        path = self.folder / LOG
        try:
            with open(path, "a", encoding="ascii") as file:
                file.write(self._line(_plain(record)))
        except OSError as error:
            raise cannot("write", path, error) from error

    def records(self) -> list[dict[str, Any]]:
        """The log. A torn last line (a kill while writing) is left out while the run is unfinished.

        Raises:
            StoreError: it cannot be read. DamagedError: a line was changed, or is of another run; the log of a finished run lacks some.
        """
        path = self.folder / LOG
        remedy = "restore it from a copy, or repeat the run with --force, which sets this folder aside"
        try:
            lines = path.read_text("ascii", errors="replace").split("\n") if is_file(path) else []
        except OSError as error:
            raise unreadable(path, error) from None
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            where = f"{path} is damaged at line {number}"
            try:
                record = parsed(line)
                if not isinstance(record, dict) or "step" not in record:
                    raise ValueError
            except ValueError:
                if (
                    number == len(lines) and line.isprintable()
                ):  # the empty text behind the last newline, or a torn line
                    break
                raise DamagedError(f"{where}; {remedy}.") from None
            records.append(checked(record, f"{where}: it", remedy, self.hash, self._summed))
        finished = self._finished()
        if finished is not None and len(records) < (wanted := finished.get(_LINES, 0)):
            raise DamagedError(f"{path} is truncated: it has {len(records)} of {wanted} lines; {remedy}.")
        return records

    def truncate_log(self, step: float = math.inf) -> None:
        """Drop what was logged after ``step`` (a resume logs it again) and a torn last line. Inside `begin` only."""
        self._check_held()
        if (self.folder / LOG).is_file():
            kept = [record for record in self.records() if record["step"] <= step]
            atomic_write(self.folder / LOG, "".join(map(self._line, kept)))

    def set_aside(self) -> Path | None:
        """Move the folder, with all that lies in it, to ``set-aside/`` beside it, where no run is looked for; None where there is none.

        Returns:
            where it lies now: its name with the date behind it.

        Raises:
            StoreError: another process holds the run, the folder is not a run of this package, or it cannot be moved.
        """
        if not self.folder.exists():
            return None
        Run.open(self.folder)
        with self._locked():
            places = (self.folder.parent / ASIDE / name for name in dated(self.folder.name))
            place = next(place for place in places if not place.exists())
            try:
                place.parent.mkdir(exist_ok=True)
                self.folder.rename(place)
            except OSError as error:
                raise cannot("move", self.folder, error) from error
        return place

    def check_same(self, wanted: Run) -> None:
        """Raise `StoreError` unless this run, found on disk, is the one that is wanted."""
        if self.hash != wanted.hash:
            raise DamagedError(f"{self.folder} holds a run of another spec; move it away or choose another folder.")

    @contextlib.contextmanager
    def _locked(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        from filelock import FileLock, Timeout  # here, since only writers need it and it is slow to import

        lock, told = FileLock(self.folder / _LOCK, timeout=0), False
        while not lock.is_locked:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)  # who held it and wrote nothing has removed it
                lock.acquire()
            except Timeout:
                if waiting is None:
                    raise HeldError(f"another process holds the run {self.folder}; wait for it or stop it.") from None
                if not told:
                    waiting(f"waiting for the process that holds the run {self.folder}")
                told = True
                time.sleep(_POLL)
            except OSError as error:
                raise cannot("write", self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def _claim(self) -> None:
        """Write ``spec.json`` into a new folder; see that an old one is ours; clear away what a kill left."""
        sweep(self.folder)
        if is_file(self.folder / SPEC):
            (before := Run.open(self.folder)).check_same(self)
            self._summed = before._summed
        elif foreign := [path.name for path in self.folder.iterdir() if path.name != _LOCK]:
            raise StoreError(f"{self.folder} holds {foreign[0]} but no {SPEC}: it is not a run; choose another folder.")
        else:
            facts = with_checksum({key: getattr(self, key) for key in _FACTS})
            atomic_write(self.folder / SPEC, json.dumps(facts, indent=2) + "\n")
            self._summed = True
        log = self.folder / LOG
        if log.is_file() and not log.read_bytes().endswith(b"\n"):
            self._held = True
            self.truncate_log()

    def _leave_nothing_empty(self) -> None:
        if {path.name for path in self.folder.glob("*")} <= {SPEC, _LOCK}:
            with contextlib.suppress(OSError):  # such as a file that somebody has put there by now
                (self.folder / SPEC).unlink(missing_ok=True)
                (self.folder / _LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def _finished(self) -> dict[str, Any] | None:
        path = self.folder / DONE
        return checked(_read_json(path), path, _REMEDY, self.hash, self._summed) if self.done else None

    def _line(self, record: Mapping[str, Any]) -> str:
        return json.dumps(with_checksum(record, self.hash)) + "\n"

    def _check_held(self) -> None:
        if not self._held:
            raise RuntimeError("a run is written inside `with run.begin():` only")


_LINES, _FILES = "log_lines", "files"  # in done.json
_REMEDY = "restore it from a copy, or move its folder away and run it again"


def dated(name: str) -> Iterator[str]:
    """Names of what is set aside today: with the date behind them, from the second on with a number."""
    today = f"{name}.{time.strftime('%Y-%m-%d')}"
    return itertools.chain([today], (f"{today}.{number}" for number in itertools.count(2)))


def _read_json(path: Path) -> dict[str, Any]:
    check_file(path)
    try:
        facts = parsed(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"cannot read {path} ({(error.strerror or str(error)).lower()}); {NO_SPEC}.") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise DamagedError(f"{path} is truncated or damaged; {_REMEDY}.")
    return facts


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON gives back of a record, in which the scalars of numpy and torch are numbers."""
    return dict(json.loads(json.dumps(record, default=lambda value: value.item())))
