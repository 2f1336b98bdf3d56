"""The store: run folders ``<root>/<kind>-<name>-<hash>``, one per spec.

torch and xarray are not imported until a result is asked for, so that ``status`` is fast.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistency_lab.errors import DamagedError, StoreError, UserError, unknown_name
from consistency_lab.markup import table
from consistency_lab.store.atomic import as_path, ensure_writable, is_file
from consistency_lab.store.mirror import url_of
from consistency_lab.store.run import ASIDE, DONE, SPEC, Run
from consistency_lab.store.spec import NUMERICS_VERSION, file_digest

if TYPE_CHECKING:
    from xarray import Dataset

    from consistency_lab.store.verify import Finding

__all__ = ["Run", "Store"]

RESULT = "result.nc"
_logger = logging.getLogger(__name__)


class Store:
    """The run folders under one root. Making a store touches no disk.

    Args:
        root: a folder; or a URL such as ``s3://bucket/runs``, which makes a `SharedStore`.

    >>> run = Store("runs").run("model", "unet", {"network": "unet", "steps": 1500, "seed": 0})
    >>> with run.begin():
    ...     run.log({"step": 0, "loss": 1.0})
    ...     run.finish({"loss": 1.0})
    """

    def __new__(cls, root: str | os.PathLike[str] = "") -> Store:
        if cls is Store and url_of(root) is not None:
            from consistency_lab.store.shared import SharedStore

            return object.__new__(SharedStore)
        return object.__new__(cls)

    def __init__(self, root: str | os.PathLike[str]):
        self.root = as_path(root).expanduser()

    @property
    def address(self) -> str:
        """What makes this store in another process, whatever folder that works in."""
        return str(self.root.absolute())

    def check(self) -> None:
        """Raise `StoreError` if nothing can be written under the root; to be asked before any work is done."""
        ensure_writable(self.root)

    def run(self, kind: str, name: str, spec: Mapping[str, Any]) -> Run:
        """The run of a spec: new, unfinished or done. A spec begun under another name is that run, with that name.

        Raises:
            UserError: the name is no text. StoreError: the spec is not JSON, or the folder that it belongs in holds another spec.
        """
        if not isinstance(name, str):
            raise UserError(f"a name is text, not {name!r}.")
        run = Run(self.root, kind, name, spec, NUMERICS_VERSION)
        run.folder = self.root / f"{_file_name(kind)}-{_file_name(name)}-{run.hash[:12]}"
        for folder in sorted(self.root.glob(f"*-{run.hash[:12]}")):
            if is_file(folder / SPEC):
                (existing := Run.open(folder)).check_same(run)
                return existing
        return run

    def runs(self) -> list[Run]:
        """Every run under the root by folder name, unfinished and stale ones too. Folders of others are passed over."""
        found, damaged = self._opened()
        for error in damaged.values():
            _logger.warning("%s", error)
        return found

    def set_aside(self) -> list[Path]:
        """The folders that were set aside here (`Run.set_aside`): nothing reads them, and they may be removed."""
        return sorted(path for path in (self.root / ASIDE).glob("*") if path.is_dir())

    def verify(self, *more: str | os.PathLike[str]) -> list[Finding]:
        """What is wrong with files of the store, and with more files and folders, and what to do (`store.verify`); nothing is changed."""
        from consistency_lab.store.verify import verify

        return verify([*([self.root] if self.root.exists() else []), *more])[1]

    def _opened(self) -> tuple[list[Run], dict[str, StoreError]]:
        """The runs, and by folder name what is wrong with those that cannot be opened."""
        found, damaged = [], {}
        for path in sorted(self.root.glob("[!.]*/")):
            if is_file(path / SPEC) or (is_run_folder(path.name) and is_file(path / DONE)):
                try:
                    found.append(Run.open(path))
                except StoreError as error:
                    damaged[path.name] = error
        return found, damaged

    def _repr_html_(self) -> str:
        rows = [(run.state, run.kind, run.name, run.folder.name) for run in self.runs()]
        return table(f"Store {self.root}, {len(rows)} runs", rows, ("state", "kind", "name", "folder"))

    def find(self, text: str | os.PathLike[str], kind: str | Sequence[str] | None = None, stale: bool = False) -> Run:
        """The run that is meant by a path, a folder's name, a run's name, or a beginning of either that fits only one.

        Args:
            kind: look among runs of this kind only ("model"), or of these; the first gives its name to the message.
            stale: accept a run of another `NUMERICS_VERSION` too.

        Raises:
            UserError: no run fits (with the nearest name), or several do.
            StoreError: the run is stale, or its ``spec.json`` is damaged; or it may be that of another run that is meant.
        """
        wanted, kinds = str(text), (kind,) if isinstance(kind, str) else kind
        if os.path.isfile(Path(wanted, SPEC)):  # (pathlib would raise for a name that is too long)
            return _fresh([Run.open(wanted)], stale)[0]
        every, damaged = self._opened()
        runs = [run for run in every if kinds is None or run.kind in kinds]
        begun = re.compile(
            rf"(?:{'|'.join(map(_file_name, kinds)) if kinds else '[^-]+'})-{re.escape(_file_name(wanted))}"
        )
        # Of a run whose spec cannot be read the folder's name is known, in which names are spelled by `_file_name`.
        fits: tuple[tuple[Callable[[Run], bool], Callable[[str], object]], ...] = (
            (lambda run: run.folder.name == wanted, lambda folder: folder == wanted),
            (lambda run: run.name == wanted, lambda folder: begun.fullmatch(folder.rpartition("-")[0])),
            (
                lambda run: run.name.startswith(wanted) or run.folder.name.startswith(wanted),
                lambda folder: begun.match(folder) or folder.startswith(wanted),
            ),
        )
        matches: list[Run] = []
        for fit, may_fit in fits if wanted else ():
            if unknown := next((folder for folder in damaged if may_fit(folder)), None):
                raise StoreError(
                    f"{wanted!r} may be the run in {self.root / unknown}, of which nothing else is known: {damaged[unknown]}"
                )
            if matches := [run for run in runs if fit(run)]:
                break
        if not matches:
            raise self._unknown(kinds[0] if kinds else "run", wanted, {run.name for run in runs})
        matches = _fresh(matches, stale)
        if len(matches) > 1:
            folders = ", ".join(run.folder.name for run in matches)
            raise UserError(
                f"{wanted!r} fits {len(matches)} runs; write the folder's name, one of {folders} (status shows their settings)."
            )
        return matches[0]

    def _unknown(self, kind: str, name: str, known: set[str]) -> UserError:
        if known:
            return unknown_name(kind, name, known, where=f"in the store {self.address}")
        return UserError(
            f"unknown {kind} {name!r}: the store {self.address} {'holds no' if self.root.is_dir() else 'is not there, so has no'} {kind}. "
            "Name the store that has it (--store, store=), or train one first: consistency-lab train --name NAME."
        )

    def result(
        self, kind: str, name: str, spec: Mapping[str, Any], compute: Callable[[], Dataset], force: bool = False
    ) -> Dataset:
        """The cached dataset of a spec: computed, saved and read back the first time, read ever after.

        Args:
            compute: called only when there is no finished run, with the run's lock held.
            force: set a finished run aside and compute it again.

        Raises:
            StoreError: the folder cannot be written or read, or holds a damaged result, or that of another run.
        """
        from consistency_lab.store.results import load_result, save_result

        run = self.run(kind, name, spec)
        path = run.folder / RESULT
        if force:
            run.set_aside()
        if not run.done:
            with run.begin(waiting=_logger.warning):
                if not run.done:
                    save_result(compute(), path)
                    run.finish({"result": RESULT, "digest": file_digest(path)})
        check_result(run)
        return load_result(path)


def check_result(run: Run) -> None:
    """Raise `DamagedError` if the result of a finished run is not the one that it was finished with."""
    said = (run.summary or {}).get("digest")
    if said is not None and is_file(run.folder / RESULT) and file_digest(run.folder / RESULT) != said:
        raise DamagedError(
            f"{run.folder / RESULT} is truncated or changed, or another run's; restore it from a copy, or make it again with force, "
            "which sets the folder aside."
        )


def _fresh(runs: list[Run], stale: bool) -> list[Run]:
    """Runs of today's numerics before others, and others only where the caller accepts them."""
    fresh = [run for run in runs if not run.stale]
    if not fresh and not stale:
        made = runs[0].numerics_version
        raise StoreError(f"{runs[0].folder} is stale (numerics version {made}, now {NUMERICS_VERSION}); run it again.")
    return fresh or runs


def is_run_folder(name: str) -> bool:
    """Whether `Store.run` may have given a folder this name."""
    return re.fullmatch(r"[^-]+-[^-]+-[0-9a-f]{12}", name) is not None


def _file_name(text: str) -> str:
    """A name that every file system takes; the hash beside it keeps names apart that become equal here."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("._")[:60] or "unnamed"
