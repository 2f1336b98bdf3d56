"""One run folder: ``spec.json`` first, then whatever the run writes and its log ``metrics.jsonl``, ``done.json`` last.

It is locked while written and a result only once ``done.json`` is there. Nothing here knows what a model is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from consistency_lab.errors import StoreError
from consistency_lab.inputs import check_file
from consistency_lab.store.atomic import as_path, atomic_write, cannot, sweep
from consistency_lab.store.spec import NUMERICS_VERSION, canonical, content_hash

_DONE, _LOG, _LOCK, _DISCARDED = "done.json", "metrics.jsonl", ".lock", ".discarded-"
SPEC = "spec.json"
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
        self._held = False

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run that lies in a folder. Raises `StoreError` if ``spec.json`` is missing, torn, foreign or edited."""
        path = as_path(folder) / SPEC
        facts = _read_json(path)
        try:
            run = cls(Path(folder), facts["kind"], facts["name"], facts["spec"], facts["numerics_version"])
            recorded = facts["hash"]
        except (KeyError, TypeError):
            raise StoreError(f"{path} was not written by consistency_lab; choose another folder.") from None
        if run.hash != recorded:
            raise StoreError(
                f"{path} was edited after the run began, so it no longer says what was run; remove the folder."
            )
        return run

    def __repr__(self) -> str:
        return f"Run({self.kind} {self.name!r}, {self.state}, {self.folder})"

    @property
    def state(self) -> str:
        """``"stale"``, ``"done"`` or ``"unfinished"``."""
        return "stale" if self.stale else "done" if self.done else "unfinished"

    @property
    def done(self) -> bool:
        """Whether the run was finished; without this its folder is not a result."""
        return (self.folder / _DONE).is_file()

    @property
    def stale(self) -> bool:
        """Whether another `NUMERICS_VERSION` made it, so that today's code would give other numbers."""
        return self.numerics_version != NUMERICS_VERSION

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `finish` was given, or None for an unfinished run. Raises `StoreError` if ``done.json`` is damaged."""
        return _read_json(self.folder / _DONE) if self.done else None

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

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Declare the run a result: the last thing that is written. Inside `begin` only."""
        self._check_held()
        atomic_write(self.folder / _DONE, _dumps(summary, indent=2) + "\n")

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``; it carries its ``"step"``; NaN is allowed. Inside `begin` only."""
        self._check_held()
        if "step" not in record:
            raise ValueError(f"a log record needs its 'step'; got {sorted(record)}")
        path = self.folder / _LOG
        try:
            with open(path, "a", encoding="ascii") as file:
                file.write(_dumps(record) + "\n")
        except OSError as error:
            raise cannot("write", path, error) from error

    def records(self) -> list[dict[str, Any]]:
        """The log. A torn last line (a kill while writing) is left out; damage anywhere else is a `StoreError`."""
        path = self.folder / _LOG
        if not path.is_file():
            return []
        lines = path.read_text("ascii", errors="replace").splitlines()
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise StoreError(f"{path} is damaged at line {number}; repeat the run with --force.") from None
        return records

    def truncate_log(self, step: float = math.inf) -> None:
        """Drop what was logged after ``step`` (a resume logs it again) and a torn last line. Inside `begin` only."""
        self._check_held()
        if (self.folder / _LOG).is_file():
            kept = [record for record in self.records() if record["step"] <= step]
            atomic_write(self.folder / _LOG, "".join(_dumps(record) + "\n" for record in kept))

    def discard(self) -> None:
        """Remove the folder; nothing happens where there is none.

        Raises:
            StoreError: another process holds the run, or the folder is not a run of this package.
        """
        if not self.folder.exists():
            return
        Run.open(self.folder)
        # Renamed first: a kill in the middle of the removal must not leave a done.json beside weights that are gone.
        trash = self.folder.with_name(f"{_DISCARDED}{secrets.token_hex(6)}")
        with self._locked():
            try:
                self.folder.rename(trash)
            except OSError as error:
                raise cannot("remove", self.folder, error) from error
        for left in self.folder.parent.glob(f"{_DISCARDED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def check_same(self, wanted: Run) -> None:
        """Raise `StoreError` unless this run, found on disk, is the one that is wanted."""
        if self.hash != wanted.hash:
            raise StoreError(f"{self.folder} holds a run of another spec; remove it or choose another folder.")

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
                    raise StoreError(f"another process holds the run {self.folder}; wait for it or stop it.") from None
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
        if (self.folder / SPEC).exists():
            Run.open(self.folder).check_same(self)
        elif foreign := [path.name for path in self.folder.iterdir() if path.name != _LOCK]:
            raise StoreError(f"{self.folder} holds {foreign[0]} but no {SPEC}: it is not a run; choose another folder.")
        else:
            facts = {key: getattr(self, key) for key in ("kind", "name", "numerics_version", "hash", "spec")}
            atomic_write(self.folder / SPEC, _dumps(facts, indent=2) + "\n")
        log = self.folder / _LOG
        if log.is_file() and not log.read_bytes().endswith(b"\n"):
            self._held = True
            self.truncate_log()

    def _leave_nothing_empty(self) -> None:
        if {path.name for path in self.folder.glob("*")} <= {SPEC, _LOCK}:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _check_held(self) -> None:
        if not self._held:
            raise RuntimeError("a run is written inside `with run.begin():` only")


def _read_json(path: Path) -> dict[str, Any]:
    check_file(path)
    try:
        facts = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {path} ({(error.strerror or str(error)).lower()}).") from None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise StoreError(f"{path} is truncated or damaged; remove its folder and run it again.")
    return facts


def _dumps(record: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON that takes the scalars of numpy and torch as numbers."""
    return json.dumps(record, indent=indent, default=lambda value: value.item())
