"""The command `study`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from consistency_lab.cli.common import SideBySide, cost_facts, with_weights
from consistency_lab.cli.live import live
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from consistency_lab.paper.tables import SizesStudy, TableStudy


@dataclass(frozen=True)
class Study(SideBySide):
    """Train what a table needs and make the table. Rows are kept as they are finished, and a stopped study goes on.

    Example: consistency-lab study likeness --preset digits --dry-run
    """

    what: tyro.conf.Positional[
        Literal[
            "likeness",
            "parametrisation",
            "streams",
            "origins",
            "sizes",
            "emergence",
            "sampling",
            "guidance",
            "perceptual",
            "zoo",
            "why",
        ]
    ] = "likeness"
    """likeness: consistency within and between families, and quality; parametrisation, streams: the same where only these differ;
    origins: what closed-form denoisers explain; sizes: against the size of the training set; emergence: over training;
    sampling: by what is shared of the noise; guidance: class-conditional models over its scale;
    perceptual: LPIPS at the images' own size; zoo: likeness of the models that ship; why: all probes on the models of likeness"""
    preset: str = "digits"
    """which models on which data"""
    data: str | None = None
    """another set than the plan's, such as "npz(path='cifar10.npz')"; rows are told apart by the images themselves"""
    seed: int = 0
    """seed of the shared noise"""
    count: int | None = None
    """samples of a comparison; the plan's own number by default"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for LPIPS"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    store: Path = Path("runs")
    """where models are kept"""
    out: Path = Path("figures")
    """folder for PRESET/STUDY.jsonl, the rows that are finished, and PRESET/STUDY.csv, the table"""

    def run(self) -> None:
        from consistency_lab.devices import resolve_device
        from consistency_lab.paper.rows import Rows
        from consistency_lab.paper.tables import SizesStudy, TableStudy
        from consistency_lab.presets import TABLES, sizes_plan
        from consistency_lab.store.atomic import ensure_writable
        from consistency_lab.store.runs import Store

        if self.count is not None and self.count < 2:
            raise UserError(f"--count must be 2 or more, not {self.count}.")
        if self.force:
            raise UserError("a study has no --force: its rows are committed. Remove those that are to be made again.")
        rows = self.out / self.preset / f"{self.what}.jsonl"
        options: dict[str, Any] = {
            "store": Store(self.store),
            "rows": Rows(rows),
            "seed": self.seed,
            "count": self.count,
            "data_dir": self.data_dir,
            "device": resolve_device(self.device),
            "executor": self.where,
        }
        data: dict[str, Any] = {} if self.data is None else {"data": self.data}
        study: SizesStudy | TableStudy
        if self.what == "sizes":
            study = SizesStudy(replace(sizes_plan(self.preset), **data), **options)
        else:
            plan = replace(TABLES[self.what](self.preset), **data)
            plan = replace(plan, metrics=with_weights(plan.metrics, self.lpips_weights))
            study = TableStudy(self.what, plan, **options)
        if self.dry_run:
            self.say(cost_facts(study.cost()))
            return
        ensure_writable(rows.parent)
        title = f"Study {self.what} of {self.preset}"
        with live(title, rows.with_name(f"{self.what}-progress.html"), self.quiet) as say:
            table = replace(study, say=say).table()
        self._finish(table)

    def _finish(self, table: Any) -> None:
        from consistency_lab.store.results import save_frame

        nested = [name for name in table if table[name].map(lambda x: isinstance(x, list | dict)).any()]
        numbers = table.drop(columns=nested)  # curves stay in the rows
        save_frame(numbers, self.out / self.preset / f"{self.what}.csv")
        keys = {
            "probe",
            "family",
            "network",
            "models",
            "size",
            "predicted",
            "step",
            "shared",
            "first",
            "second",
            "frechet",
            "covered",
            "fit",
            "outside",
            "p_any",
        }
        shown = [
            n for n in numbers if n in keys or n.startswith(("between", "within", "copies", "explained_", *_SHOWN))
        ]
        print(numbers[shown].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))


_SHOWN = (
    *("mse_score", "lpips_score"),
    *("relative_curvature", "roughness", "relative_barrier", "hessian_relative_trace", "handoff_t", "barrier_"),
)
