"""A training run by step, and runs beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import records, score_text
from consistency_lab.plots import reading
from consistency_lab.plots.snapshots import snapshot_frame, snapshots


class Snapshots(Kind):
    place = 85

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        over = "runs and noise" if "family_score" in ds else "noise: these runs"
        yield Drawing(
            "steps",
            snapshots(ds),
            snapshot_frame(ds),
            f"Consistency of the images of {ds.sizes['model']} runs with their final ones and with each other, by training step.",
            f"Left: {ds.attrs.get('note', '')} Right: bands are 95 % over {over}.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        table = snapshot_frame(ds)
        own = table[table["quantity"] == "to final"]
        first = own[own["step"] == own["step"].min()]
        said = ", ".join(f"{row['of']} {_text(row)}" for row in first.to_dict("records"))
        at = f"{int(first['step'].iloc[0])} of {int(own['step'].max())}"
        return f"At step {at}, score with the run's own end: {said}. {ds.attrs.get('note', '')}"

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {
            "rows": {name: records(snapshot_frame(ds, name)) for name in reading.names(ds, "metric")},
            "warnings": reading.warnings(ds),
        }

    def section(self, ds: xr.Dataset) -> Section:
        table = snapshot_frame(ds)
        columns = list(dict.fromkeys(zip(table["quantity"], table["of"], strict=True)))
        texts = {(row["quantity"], row["of"], row["step"]): _text(row) for row in table.to_dict("records")}
        rows = [(str(step), *(texts[(*column, step)] for column in columns)) for step in sorted(set(table["step"]))]
        head = ("step", *(f"{of}, own end" if quantity == "to final" else str(of) for quantity, of in columns))
        parts: list[Part] = [f"Warning: {sentence}" for sentence in reading.warnings(ds)]
        return Section(
            "Over training", [*parts, *self.figures(ds), Table(head, rows), Note(str(ds.attrs.get("note", "")))]
        )


def _text(row: dict[Any, Any]) -> str:
    return score_text(row["value"], row["low"], row["high"])
