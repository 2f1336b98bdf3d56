"""Finished rows of a study, one JSON object per line, so that a study resumes from what was finished and the file can be committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consistency_lab.store.rows import RowFile
from consistency_lab.store.spec import NUMERICS_VERSION, content_hash, files_named


class Rows:
    """Rows by the hash of their spec, in a file that other processes may write to as well (`store.rows.RowFile`).

    A row holds ``spec`` (what was asked), ``numerics_version`` (what made it; rows without are of version 2), ``key`` (the spec's hash with
    that and the content of files that it names) and ``values`` (what was found). Rows of another numerics version stay in the file and
    are not used.

    Args:
        path: a ``.jsonl`` file; made with the first row.

    Raises:
        StoreError: the file cannot be read, or a line of it is damaged.
    """

    def __init__(self, path: str | Path):
        self._file = RowFile(path)
        self.path = self._file.path

    def __len__(self) -> int:
        return len(self._file.rows)

    def finished(self) -> list[dict[str, Any]]:
        """``key``, ``spec`` and ``values`` of every row, by the names of this version."""
        return list(self._file.rows.values())

    def key(self, spec: Mapping[str, Any]) -> str:
        files = files_named(spec)
        return content_hash({"spec": spec, "numerics_version": NUMERICS_VERSION, **({"files": files} if files else {})})

    def find(self, spec: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of a finished row, also of one that another process has finished meanwhile, or None."""
        key = self.key(spec)
        if key not in self._file.rows:
            self._file.refresh()
        row = self._file.rows.get(key)
        return None if row is None else row["values"]

    def row(self, spec: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The values for a spec: computed and written the first time, read ever after.

        Of two processes that compute one row at the same time the values of the first that has them count for both.
        """
        found = self.find(spec)
        if found is None:
            key, values = self.key(spec), compute()
            made = {"key": key, "spec": spec, "numerics_version": NUMERICS_VERSION, "values": values}
            found = self._file.append(made)["values"]
        return found


def all_finished(rows: Rows, ask: Callable[[Rows], object]) -> bool:
    """Whether what is asked of the rows needs none that is missing; nothing is computed."""
    try:
        ask(_Finished(rows.path))
    except _MissingRow:
        return False
    return True


class _MissingRow(Exception):
    pass


class _Finished(Rows):
    """Rows of which none is made."""

    def row(self, spec: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        found = self.find(spec)
        if found is None:
            raise _MissingRow
        return found
