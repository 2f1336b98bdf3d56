"""The command `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from consistency_lab.choices import printable
from consistency_lab.cli.plans import print_json


@dataclass(frozen=True)
class Verify:
    """Is every file what was written? Reads a store, folders of results and rows through. Exit status 0: yes, 1: something is wrong.

    Example: consistency-lab verify runs figures/digits
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """stores, folders of results, and files: .nc, .jsonl, .json, .safetensors"""
    json: bool = False
    """print what was found as JSON, for programs"""

    def run(self) -> int:
        from consistency_lab.store.verify import verify

        files, found = verify(self.paths)
        wrong = [finding for finding in found if finding.wrong]
        if self.json:
            print_json({"files": files, "found": [{**each._asdict(), "path": str(each.path)} for each in found]})
            return 1 if wrong else 0
        for finding in [*wrong, *(finding for finding in found if not finding.wrong)]:
            mark = "WRONG" if finding.wrong else "note"
            print(printable(f"{mark:<5}  {finding.path}  {finding.what}; {finding.remedy}."))
        said = f"{len(wrong)} wrong" if wrong else "all as they were written"
        print(f"{files} files looked at: {said}.")
        return 1 if wrong else 0
