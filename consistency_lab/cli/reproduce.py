"""The command `reproduce`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from consistency_lab.cli.common import OfModels, with_weights
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consistency_lab.studies.agreement import Agreement
    from consistency_lab.studies.reproduce import Recorded


@dataclass(frozen=True)
class Reproduce(OfModels):
    """Measure a result again from what it records, and say number by number whether it agrees. Exit status 0: all do, 1: some do not.

    Models that the store or the zoo has are loaded, others are trained from their specs; with --force all but the zoo's are trained again,
    beside the store. A number agrees if it is equal, or within the 95 % interval of the first.

    Example: consistency-lab reproduce comparison/results/comparison.nc --dry-run
    """

    result: tyro.conf.Positional[str] = ""
    """a .nc file: a comparison, a difficulty, or a landscape of a line or a plane"""
    store: Path = Path("runs")
    """where runs are looked up, and trained into"""
    data: tuple[str, ...] = ()
    """image sets of the result whose names do not say what they are: files or folders, found by their fingerprints"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for metrics such as lpips-squeeze"""
    out: Path | None = None
    """a .nc file for what is measured now"""

    def run(self) -> int:
        from consistency_lab.store.atomic import ensure_writable
        from consistency_lab.store.results import load_result, save_result
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.reproduce import read_recorded

        if not self.result:
            raise UserError("name a result, for example: consistency-lab reproduce comparison/results/comparison.nc")
        store = Store(self.store)
        recorded = read_recorded(load_result(self.result), store, data=self.data, data_dir=self.data_dir)
        metrics = recorded.metrics(self._with_weights)
        if self.dry_run:
            self.say(self._plan(recorded, store))
            return 0
        if self.out is not None:
            if self.out.exists() and not self.force:
                raise UserError(f"{self.out} is there already; name another file, or write over it with --force.")
            ensure_writable(self.out.parent)
        with tempfile.TemporaryDirectory() as anew:
            place = Store(anew) if self.force else store
            found = recorded.measured(place, metrics, device=self.device, progress=self.progress)
        if self.out is not None:
            save_result(found.result, self.out)
        print("\n".join(_said(found.agreements)))
        print(f"\n{_conclusion(found.agreements, found.differently)}")
        return 0 if found.agrees else 1

    def _with_weights(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """The metrics with today's file of weights in the place of the recorded one."""
        from consistency_lab.choices import Choice

        if self.lpips_weights is None:
            return tuple(metrics)
        chosen = [Choice.parse(metric) for metric in metrics]
        plain = [str(Choice(c.name, {k: v for k, v in c.options.items() if k != "weights"})) for c in chosen]
        return with_weights(plain, self.lpips_weights)

    def _plan(self, recorded: Recorded, store: Any) -> dict[str, Any]:
        plan = {}
        for model in (*recorded.models, *recorded.again):
            if model.shipped("cpu") is not None:
                plan[model.name] = f"load zoo:{model.facts['zoo']}"
                continue
            kept = None if self.force else model.kept(store)
            if kept is None:
                model.check_trainable()
            plan[model.name] = model.training() if kept is None else f"load {kept.folder}"
        return {
            "result": self.result,
            "kind": recorded.first.attrs["kind"],
            "models": plan,
            "data": [data["name"] for data in recorded.sets],
        }


def _said(found: Sequence[Agreement]) -> list[str]:
    """A line for each variable."""
    width = max(len(each.name) for each in found)
    lines = []
    for each in found:
        if each.note:
            what = each.note
        elif each.first is not None:
            what = f"{each.first:.6g} then, {each.second:.6g} now"
        else:
            what = f"{each.equal} of {each.numbers} equal to the bit"
        if each.largest > 0:
            what += f", largest difference {each.largest:.3g}"
        lines.append(f"  {each.name:<{width}}  {each.status:<20}  {what}")
    return lines


def _conclusion(found: Sequence[Agreement], differently: Sequence[str]) -> str:
    from consistency_lab.studies.agreement import DIFFERS, EQUAL

    other = [each.name for each in found if each.status == DIFFERS]
    equal = sum(each.status == EQUAL for each in found)
    said = f"{len(found) - len(other)} of {len(found)} quantities agree, {equal} of them to the bit."
    if other:
        said = f"{said} These do not: {', '.join(other)}."
    made = "".join(f"\n  {line}" for line in differently)
    if made:
        return f"{said}\nMade differently:{made}"
    return f"{said}\nVersions, device, threads and data are the same."
