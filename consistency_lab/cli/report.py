"""The command `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from consistency_lab.cli.plans import DryRun
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Report(DryRun):
    """Make one page out of results (.nc files, or folders that hold them).

    Example: consistency-lab report comparison between --out report.html
    """

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """.nc files, or folders that hold some, themselves or in their results/"""
    title: str | None = None
    """heading of the page"""
    out: Path = Path("report.html")
    """the page; .json and .md are written beside it"""

    def run(self) -> None:
        from consistency_lab.reports.html import report
        from consistency_lab.store.results import load_result

        paths = [path for given in self.results for path in _results_in(given)]
        if not paths:
            raise UserError("there is nothing to report: name .nc files or a folder that holds some.")
        if self.dry_run:
            self.say({"results": [str(path) for path in paths], "out": str(self.out)})
            return
        print(report([load_result(path) for path in paths], self.out, title=self.title))


def _results_in(given: Path) -> list[Path]:
    """The file itself, or the results in a folder and in its results/."""
    if not given.is_dir():
        return [given]
    found = [*sorted(given.glob("*.nc")), *sorted((given / "results").glob("*.nc"))]
    if not found:
        raise UserError(
            f"there are no results (.nc files) in {given} or {given / 'results'}; name a folder that holds some."
        )
    return found
