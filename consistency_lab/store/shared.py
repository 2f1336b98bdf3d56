"""A store on shared storage (``s3://bucket/runs``): every machine works in a folder of its own and keeps it alike with the shared one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistency_lab.errors import StoreError
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.mirror import Mirror, make_folder, opened, reaching, url_of
from consistency_lab.store.run import ASIDE, DONE, LOG, SPEC, Run, dated
from consistency_lab.store.runs import Store
from consistency_lab.store.spec import NUMERICS_VERSION

if TYPE_CHECKING:
    from consistency_lab.store.verify import Finding


class SharedStore(Store):
    """What ``Store(URL)`` gives.

    Runs are trained and read in a folder on this machine's disk, below ``$XDG_CACHE_HOME`` or ``~/.cache``, and copied to the URL while
    they are written. A run begins from what the URL has of it, wherever that was written; a finished one is fetched when it is asked for.

    The lock of a run holds on one machine. Machines that would work on one run at the same time are not kept apart, except that only the
    one that began last can write: leave one study to one driver, or use a folder that all machines see, whose locks hold for all.

    Args:
        root: a URL that fsspec knows.

    Raises:
        StoreError: fsspec does not know it, or lacks a package for it.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.url = url_of(root) or str(root)
        self._files, self._there = opened(self.url)
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        super().__init__(caches / "consistency_lab" / "stores" / hashlib.sha256(self.url.encode()).hexdigest()[:12])

    @property
    def address(self) -> str:
        return self.url

    def check(self) -> None:
        """Raise `StoreError` if nothing can be written, here or there."""
        super().check()
        probe = f"{self._there}/.probe-{secrets.token_hex(6)}"
        with reaching(self.url):
            make_folder(self._files, self._there)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)

    def run(self, kind: str, name: str, spec: Mapping[str, Any]) -> SharedRun:
        wanted = Run(self.root, kind, name, spec, NUMERICS_VERSION).hash[:12]
        for folder in self._folders():
            if folder.endswith(f"-{wanted}"):
                self._learn(folder)
        return self._shared(super().run(kind, name, spec))

    def verify(self, *more: str | os.PathLike[str]) -> list[Finding]:
        from consistency_lab.store.verify import verify

        return verify([self.url, *more])[1]

    def copies(self) -> Iterator[tuple[str, Path]]:
        """Name and whole copy of each run that lies at the URL, one at a time, in a folder that is removed before the next is made."""
        for name in self._folders():
            if name != ASIDE:
                with tempfile.TemporaryDirectory(prefix="consistency_lab-") as scratch:
                    copy = Path(scratch, name)
                    self._mirror(copy).fetch()
                    yield name, copy

    def names_aside(self) -> list[str]:
        """Names of what was set aside at the URL."""
        return self._folders(ASIDE)

    def _opened(self) -> tuple[list[Run], dict[str, StoreError]]:
        """Every run there, of all machines. Nothing but their specs is fetched."""
        folders = self._folders()
        for folder in folders:
            self._learn(folder)
        found, damaged = super()._opened()
        return [self._shared(run) for run in found if run.folder.name in folders], damaged

    def _folders(self, *below: str) -> list[str]:
        with reaching(self.url):
            self._files.invalidate_cache()
            try:
                found = self._files.ls("/".join([self._there, *below]), detail=False)
            except FileNotFoundError:
                return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if not name.startswith("."))

    def _learn(self, folder: str) -> None:
        """Fetch the spec of a run, unless this machine has it."""
        mirror = self._mirror(self.root / folder)
        if not (self.root / folder / SPEC).exists() and mirror.has(SPEC):
            mirror.fetch(SPEC)

    def _shared(self, run: Run) -> SharedRun:
        return SharedRun(run, self._mirror(run.folder))

    def _mirror(self, folder: Path) -> Mirror:
        url, there = f"{self.url}/{folder.name}", f"{self._there}/{folder.name}"
        return Mirror(url, self._files, there, folder, first=SPEC, growing=LOG, last=DONE)


class SharedRun(Run):
    """A run folder here and its mirror there."""

    def __init__(self, run: Run, mirror: Mirror):
        super().__init__(run.folder, run.kind, run.name, run.spec, run.numerics_version)
        self.mirror = mirror

    @property
    def state(self) -> str:
        finished = super().done or self.mirror.has(DONE)
        return "stale" if self.stale else "done" if finished else "unfinished"

    @property
    def done(self) -> bool:
        """Whether the run was finished, on whichever machine; if so, its folder is here from then on."""
        if not super().done and self.mirror.has(DONE):
            self.mirror.fetch()
        return super().done

    @contextlib.contextmanager
    def begin(self, waiting: Callable[[str], None] | None = None) -> Iterator[Run]:
        """As `Run.begin`, from what is there, which other machines may have written. Raises `StoreError` too if it cannot be reached."""
        with super().begin(waiting):
            if self.done:
                yield self
                return
            self.mirror.claim()
            log = self.folder / LOG
            there = self.mirror.names()
            # A machine that could not reach the store for a while has a longer log than that.
            if there - {SPEC} and not (log.exists() and LOG in there and log.stat().st_size > self.mirror.size(LOG)):
                self.mirror.fetch()
            try:
                with self.mirror.following():
                    yield self
            finally:
                empty = not self.mirror.names() - {SPEC}
                if empty:
                    self.mirror.remove()
            if not empty:
                self.mirror.tidy()

    def finish(self, summary: Mapping[str, Any], passing: Collection[str] = ()) -> None:
        content = self._declared(summary, passing)
        self.mirror.declare(content)
        atomic_write(self.folder / DONE, content)

    def set_aside(self) -> Path | None:
        """Here and there, each under a name that is free."""
        place = super().set_aside()
        if not self.mirror.names():
            return place
        names = dated(self.folder.name)
        there = self.mirror.move(ASIDE, names if place is None else itertools.chain([place.name], names))
        return place or self.folder.parent / ASIDE / there
