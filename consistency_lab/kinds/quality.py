"""How good the images are, beside real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import number, records, with_interval
from consistency_lab.plots import reading
from consistency_lab.plots.quality import quality, quality_frame


class Quality(Kind):
    place = 15

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "measures",
            quality(ds),
            quality_frame(ds),
            f"{ds.sizes['measure']} measures of quality of {ds.sizes['row']} sets of images.",
            "Bars: 95 %, over samples, the real images held fixed. The line is the control, real images against other real ones.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        table = _frechet(ds)
        said = ", ".join(f"{row['row']} {_text(row)}" for row in table[table["role"] != "reference"].to_dict("records"))
        return " ".join([f"{table['measure'].iloc[0]}: {said}.", *(f"Warning: {x}" for x in reading.warnings(ds))])

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(quality_frame(ds)), "warnings": reading.warnings(ds)}

    def section(self, ds: xr.Dataset) -> Section:
        table = _frechet(ds)
        rows = [
            (f"{row['row']} ({row['role']})", str(row["samples"]), _text(row), _owed(row))
            for row in table.to_dict("records")
        ]
        head = ("images", "how many", f"{table['measure'].iloc[0]} [95 %]", "owed to their number")
        parts: list[Part] = [f"Warning: {sentence}" for sentence in reading.warnings(ds)]
        return Section(
            "How good are the images?",
            [*parts, *self.figures(ds), Table(head, rows), Note(str(ds.attrs.get("note", "")))],
        )


def _frechet(ds: xr.Dataset) -> pd.DataFrame:
    table = quality_frame(ds)
    return table[table["measure"] == table["measure"].iloc[0]]


def _owed(row: dict[Any, Any]) -> str:
    """The bias; nothing but rounding is none."""
    return number(row["bias"] if abs(row["bias"]) > 1e-9 * abs(row["value"]) else 0.0)


def _text(row: dict[Any, Any]) -> str:
    return with_interval(row["value"], row["low"], row["high"])
