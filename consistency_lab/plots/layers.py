"""Figure of representations: linear CKA of layers, beside that of other inputs and of the input itself."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names
from consistency_lab.plots import reading
from consistency_lab.plots.bands import draw_lines, long_frame, styles
from consistency_lab.plots.theme import MUTED, new_figure, themed

MOST_NAMED = 40  # layers whose names fit under an axis


def layer_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns layer, t, value, low, high, quantity ("family", "cka", "null", "input") and of: the pair or model."""
    ds = reading.need(ds, "representations", *interval_names("cka"), "null", "input_cka")
    parts = [long_frame(ds, "family_cka", quantity="family", of="all models")] if "family_cka" in ds else []
    for variable, quantity, dim in (("cka", "cka", "pair"), ("null", "null", "pair"), ("input_cka", "input", "model")):
        parts.append(long_frame(ds, variable, quantity=quantity).rename(columns={dim: "of"}))
    return pd.concat(parts, ignore_index=True)[["quantity", "of", "layer", "t", "value", "low", "high"]]


@themed
def layers(ds: xr.Dataset) -> Figure:
    """A panel per noise level: CKA by layer (of the family, or of each pair), the null and the CKA with the input dotted."""
    table = layer_frame(ds)
    known = table[table["value"].notna()][
        "layer"
    ].unique()  # a layer that is told the time alone says the same of every image
    names, times = [name for name in reading.names(ds, "layer") if name in known], sorted(set(table["t"]))
    table = table[table["layer"].isin(known)]
    table = table.assign(at=table["layer"].map({name: i for i, name in enumerate(names)}))
    shown = "family" if "family_cka" in ds else "cka"
    width = max(6.4, min(12.0, 2.4 + 0.26 * len(names)))
    figure, axes = new_figure(
        width, 1.9 * len(times) + (1.4 if len(names) <= MOST_NAMED else 0.5), len(times), 1, sharex=True
    )
    for ax, t in zip(axes[:, 0], times, strict=True):
        part = table[table["t"] == t]
        main = part[part["quantity"] == shown]
        draw_lines(ax, main, "at", "of", styles(list(dict.fromkeys(main["of"]))))
        for quantity, dashes in (("null", (0, (1.5, 1.5))), ("input", (0, (5, 1.5)))):
            mean = part[part["quantity"] == quantity].groupby("at")["value"].mean()
            ax.plot(
                mean.index,
                mean.values,
                color=MUTED,
                ls=dashes,
                lw=1.1,
                label={"null": "other inputs"}.get(quantity, "the input"),
            )
        ax.set_ylim(min(-0.05, float(part["value"].min())), 1.04)
        ax.set_title(f"t = {t:.2g}")
        ax.set_ylabel("linear CKA")
    axes[0, 0].legend(fontsize=7, frameon=False, loc="lower left")
    last = axes[-1, 0]
    if len(names) <= MOST_NAMED:
        last.set_xticks(range(len(names)), names, rotation=90, fontsize=6.5)
    else:
        last.set_xlabel("layer, in the order of definition")
    return figure
