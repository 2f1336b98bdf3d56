"""The loss on a plane in weight space as a surface: the shape at a glance, where contours give the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from consistency_lab.plots.landscapes import SHADES, plane_frame
from consistency_lab.plots.reading import model_of, need
from consistency_lab.plots.theme import GRID, MUTED, blank_figure, note, themed

MOST = 40  # cells along an axis: finer ones are not seen, and every cell is a polygon of the page


@themed
def surface(ds: xr.Dataset) -> Figure:
    """The mean loss of a plane over the loss at the model, its height in the logarithm where it spans more than a decade.

    Raises:
        UserError: another kind of result.
    """
    ds = need(ds, "plane", "loss")
    table = plane_frame(ds)
    grid = table[table["name"] == "mean"].pivot(index="y", columns="x", values="relative")
    x, y, z = grid.columns.to_numpy(), grid.index.to_numpy(), grid.to_numpy()
    figure = blank_figure(5.2, 4.0)
    if not np.isfinite(z).all() or not (z > 0).all():
        note(figure.subplots(), "the loss is not positive and finite everywhere")
        return figure
    ax: Any = figure.add_subplot(projection="3d")  # matplotlib has no stubs of its axes in space
    logarithmic = z.max() > 10 * z.min()
    height = np.log10(z) if logarithmic else z
    far = max(z.max(), 1 / z.min(), 1.01)
    # The shades of the contours: 1, the model's own loss, in their middle.
    colours = SHADES(LogNorm(1 / far, far)(z))
    ax.plot_surface(
        *np.meshgrid(x, y),
        height,
        facecolors=colours,
        rcount=MOST,
        ccount=MOST,
        lw=0.25,
        edgecolor="#10131855",
        shade=False,
    )
    at = [height[np.abs(y - b).argmin(), np.abs(x - a).argmin()] for a, b in _corners(ds)]
    for (a, b), level in zip(_corners(ds), at, strict=True):
        ax.plot([a, a], [b, b], [height.min(), level], color="#101318", lw=0.9, zorder=9)
        ax.plot([a], [b], [level], "o", ms=4.5, mfc="#fefefe", mec="#101318", zorder=10)
    ax.set_xlabel("first axis", labelpad=-2)
    ax.set_ylabel("second axis", labelpad=-2)
    ax.set_zlabel("loss / loss at the model", labelpad=2)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(4, integer=logarithmic and axis is ax.zaxis))
        axis.set_pane_color((0, 0, 0, 0))
        axis._axinfo["grid"].update(color=GRID, linewidth=0.6)  # there is no other way
    if logarithmic:
        marks = np.arange(np.ceil(height.min()), np.floor(height.max()) + 1)
        ax.set_zticks(marks, labels=[f"{10.0**mark:g}" for mark in marks])
    ax.tick_params(pad=-1)
    ax.view_init(elev=32, azim=-58)
    figure.suptitle(f"{model_of(ds)}, all timesteps", fontsize=9, color=MUTED, x=0.02, ha="left")
    return figure


def _corners(ds: xr.Dataset) -> list[tuple[float, float]]:
    """Where the models stand on the plane."""
    return list(zip(ds["corner_x"].values.tolist(), ds["corner_y"].values.tolist(), strict=True))
