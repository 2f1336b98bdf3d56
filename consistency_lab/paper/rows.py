"""Finished rows of a study, one JSON object per line, so that a study resumes from what was finished and the file can be committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consistency_lab.errors import StoreError
from consistency_lab.inputs import check_file
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.migration import migrated_values
from consistency_lab.store.spec import NUMERICS_VERSION, content_hash, files_named


class Rows:
    """Rows by the hash of their spec.

    A row holds ``spec`` (what was asked), ``numerics_version`` (what made it; rows without are of version 2), ``key`` (the spec's hash with
    that and the content of files that it names) and ``values`` (what was found). Rows of another numerics version stay in the file and
    are not used.

    Args:
        path: a ``.jsonl`` file; made with the first row.

    Raises:
        StoreError: the file cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            check_file(self.path)
            try:
                rows = [json.loads(line) for line in self.path.read_text("utf-8").splitlines() if line.strip()]
                self._rows = {row["key"]: {**row, "values": migrated_values(row["values"])} for row in rows}
            except (OSError, ValueError, KeyError, TypeError):
                raise StoreError(f"{self.path} is not a file of rows (one JSON object a line); move it away.") from None

    def __len__(self) -> int:
        return len(self._rows)

    def finished(self) -> list[dict[str, Any]]:
        """``key``, ``spec`` and ``values`` of every row, by the names of this version."""
        return list(self._rows.values())

    def key(self, spec: Mapping[str, Any]) -> str:
        files = files_named(spec)
        return content_hash({"spec": spec, "numerics_version": NUMERICS_VERSION, **({"files": files} if files else {})})

    def find(self, spec: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of a finished row, or None."""
        row = self._rows.get(self.key(spec))
        return None if row is None else row["values"]

    def row(self, spec: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The values for a spec: computed and written the first time, read ever after."""
        found = self.find(spec)
        if found is None:
            key = self.key(spec)
            made = {"key": key, "spec": spec, "numerics_version": NUMERICS_VERSION, "values": compute()}
            self._rows[key] = json.loads(json.dumps(made, sort_keys=True))
            atomic_write(self.path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in self._rows.values()))
            found = self._rows[key]["values"]
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
