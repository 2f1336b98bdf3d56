"""The gallery as one still figure: what a README or a slide shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from consistency_lab.plots import reading
from consistency_lab.plots.drawable import with_short_names
from consistency_lab.plots.look import SHRINK, current
from consistency_lab.plots.theme import INK, MUTED, new_figure, themed
from consistency_lab.similarity.named import shared_word

Pixels = np.ndarray
_DIMS = ("shown", "row", "column", "channel")


@themed
def gallery(ds: xr.Dataset, t: float = 0.0, columns: int = 10) -> Figure:
    """Models (and references) as rows, shared noise as columns: x0 estimates at the grid time nearest to ``t``."""
    ds = with_short_names(reading.need(ds, "comparison", "images"))
    nearest = float(ds["t"].sel(t=t, method="nearest"))
    when = "" if shared_word(ds) == "place" else f", t = {nearest:.2g}"
    return grid(gallery_rows(ds, t), f"same {shared_word(ds)} in each column{when}", columns)


def gallery_rows(ds: xr.Dataset, t: float = 0.0) -> list[tuple[str, Pixels]]:
    """The rows of the gallery of a comparison: name and pixels ``(shown, row, column, channel)``, 0 to 255."""
    ds = reading.need(ds, "comparison", "images")
    rows = [(name, ds["images"].isel(model=i)) for i, name in enumerate(reading.names(ds, "model"))]
    if "reference_images" in ds:
        for i, name in enumerate(reading.names(ds, "reference")):
            rows.append((reading.REFERENCE_NAMES.get(name, name), ds["reference_images"].isel(reference=i)))
    return [(name, images.sel(t=t, method="nearest").transpose(*_DIMS).values) for name, images in rows]


def show_image(ax: Axes, pixels: Pixels) -> None:
    """One image ``(row, column, channel)``, 0 to 255: three channels in colour, any other number as the mean over them, in grey."""
    if pixels.shape[-1] == 3:
        ax.imshow(pixels.astype(np.uint8))
    else:
        ax.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=255)


@themed
def grid(rows: Sequence[tuple[str, Pixels]], title: str, columns: int = 10) -> Figure:
    """Images of one name in a row: ``(columns, row, column, channel)`` each, 0 to 255; rows may differ in how many they have."""
    columns = min(columns, max(len(pixels) for _, pixels in rows))
    own, side = current(), 0.62
    if own.paper:
        side = min(0.62, (own.width - 0.8) / columns) / SHRINK
    figure, axes = new_figure(1.3 + 0.62 * columns, 0.45 + side * len(rows), len(rows), columns, fold=False)
    engine = figure.get_layout_engine()
    if own.paper and isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.012, h_pad=0.012, wspace=0.02, hspace=0.02)
    for y, (name, pixels) in enumerate(rows):
        for x in range(columns):
            ax = axes[y, x]
            if x < len(pixels):
                show_image(ax, pixels[x])
            if x:
                ax.set_axis_off()  # nothing but the picture: the layout need not measure ticks and spines that nobody sees
            else:
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
                ax.spines[:].set_visible(False)
                ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5, color=INK)
    figure.suptitle(title, fontsize=9, color=MUTED)
    return figure
