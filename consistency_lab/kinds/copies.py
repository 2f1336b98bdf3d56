"""Reproducibility (RP) and generalisation (GL)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import records, with_interval
from consistency_lab.metrics.copy_detection import THRESHOLD
from consistency_lab.plots import reading
from consistency_lab.plots.copies import CHANCE, FAMILY, TRAINING, copies, copies_frame


class Reproducibility(Kind):
    place = 11

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        over = "models and noise" if "family_rp" in ds else "noise: this pair"
        yield Drawing(
            "shares",
            copies(ds),
            copies_frame(ds),
            "Share of images that two models make alike from the same noise (RP), and that copy no training image (GL), by threshold.",
            f"Bands: 95 %, of RP over {over}, of GL over samples. Dotted: the share of copies among images of other noise, and the GL of "
            "training images beside the others: what RP and GL are to be read against.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        table = copies_frame(ds)
        rows = {(row["quantity"], row["of"]): row for row in table[table["threshold"] == THRESHOLD].to_dict("records")}
        first = FAMILY if "family_rp" in ds else str(ds["pair"].values[0])

        def text(quantity: str, of: str) -> str:
            return with_interval(*(rows[quantity, of][end] for end in ("value", "low", "high")))

        chance = rows["RP", CHANCE]["value"]
        said = f"RP at {THRESHOLD:g}, {first}: {text('RP', first)}; by chance {chance:.3g}."
        if "gl" in ds:
            said += " GL: " + ", ".join(f"{model} {text('GL', model)}" for model in reading.names(ds, "model")) + "."
        return " ".join([said, *(f"Warning: {sentence}" for sentence in reading.warnings(ds))])

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(copies_frame(ds)), "warnings": reading.warnings(ds)}

    def section(self, ds: xr.Dataset) -> Section:
        table = copies_frame(ds)
        rows = [
            (
                f"{'GL' if row['of'] == TRAINING else row['quantity']}, {row['of']}",
                with_interval(row["value"], row["low"], row["high"]),
            )
            for row in table[table["threshold"] == THRESHOLD].to_dict("records")
        ]
        parts: list[Part] = [f"Warning: {sentence}" for sentence in reading.warnings(ds)]
        parts += [
            *self.figures(ds),
            Table((f"share at {THRESHOLD:g}", "value [95 %]"), rows),
            Note(str(ds.attrs.get("note", ""))),
        ]
        return Section("Copies of each other, copies of training images", parts)
