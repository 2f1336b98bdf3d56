"""The command `verify`."""

from __future__ import annotations

import json as _json
from dataclasses import dataclass
from pathlib import Path

import tyro

from consistency_lab.choices import printable


@dataclass(frozen=True)
class Verify:
    """Is every file what was written? Reads a store, folders of results and rows through. Exit status 0: yes, 1: something is wrong.

    Example: consistency-lab verify runs figures/digits
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """stores, folders of results, and files: .nc, .jsonl, .json, .safetensors"""
    json: Path | None = None
    """write what was found as JSON"""

    def run(self) -> int:
        from consistency_lab.store.atomic import atomic_write
        from consistency_lab.store.verify import verify

        files, found = verify(self.paths)
        wrong = [finding for finding in found if finding.wrong]
        for finding in [*wrong, *(finding for finding in found if not finding.wrong)]:
            mark = "WRONG" if finding.wrong else "note"
            print(printable(f"{mark:<5}  {finding.path}  {finding.what}; {finding.remedy}."))
        said = f"{len(wrong)} wrong" if wrong else "all as they were written"
        print(f"{files} files looked at: {said}.")
        if self.json is not None:
            content = {"files": files, "found": [{**each._asdict(), "path": str(each.path)} for each in found]}
            atomic_write(self.json, _json.dumps(content, indent=2) + "\n")
        return 1 if wrong else 0
