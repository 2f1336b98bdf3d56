"""Linear CKA of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import number, records, with_interval
from consistency_lab.plots.layers import layer_frame, layers

MOST_ROWS = 30  # layers in a table


class Layers(Kind):
    place = 45

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        over = "models and images" if "family_cka" in ds else "images: these models"
        yield Drawing(
            "cka",
            layers(ds),
            layer_frame(ds),
            f"Linear CKA of {ds.sizes['layer']} layers of {ds.sizes['model']} models at {ds.sizes['t']} noise levels.",
            f"Bands: 95 % over {over}. Dotted: inputs that do not correspond, about 0. Dashed: the noisy images themselves in the place of "
            "a model; layers that have hardly changed their input agree for that reason. Layers that say the same of every image have "
            "none.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        shown = _shown(ds).dropna(subset="value")
        if shown.empty:
            return "No layer says anything of its input, so there is no CKA."
        low, high = shown.loc[shown["value"].idxmin()], shown.loc[shown["value"].idxmax()]
        least, most = (
            f"{with_interval(x['value'], x['low'], x['high'])} ({x['layer']}, t = {x['t']:.2g})" for x in (low, high)
        )
        return f"CKA of {ds.sizes['model']} models, from {least} to {most}."

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(layer_frame(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        shown, every = _shown(ds).dropna(subset="value"), layer_frame(ds)
        least = shown.groupby("layer")["value"].mean().nsmallest(MOST_ROWS).index
        others = every.groupby(["quantity", "layer"])["value"].mean()
        rows = []
        for (layer, of), part in shown[shown["layer"].isin(least)].groupby(["layer", "of"], sort=False):
            texts = {row["t"]: with_interval(row["value"], row["low"], row["high"]) for row in part.to_dict("records")}
            beside = (number(float(others[quantity, layer])) for quantity in ("null", "input"))
            name = str(layer) if "family_cka" in ds else f"{layer}, {of}"
            rows.append((name, *(texts.get(t, "undefined") for t in ds["t"].values), *beside))
        head = ("layer", *(f"CKA at t = {t:.2g}" for t in ds["t"].values), "other inputs", "the input itself")
        parts: list[Part] = [*self.figures(ds), Table(head, rows), Note(str(ds.attrs.get("note", "")))]
        if shown["layer"].nunique() > MOST_ROWS:
            parts.append(Note(f"The table holds the {MOST_ROWS} layers that agree least."))
        return Section("Do they compute alike?", parts)


def _shown(ds: xr.Dataset) -> Any:
    table = layer_frame(ds)
    return table[table["quantity"] == ("family" if "family_cka" in ds else "cka")]
