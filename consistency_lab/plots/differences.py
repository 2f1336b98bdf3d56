"""Two pictures and where they differ, side by side: of a gate's worst pairs, and of samples of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.plots import reading
from consistency_lab.plots.theme import new_figure, note, themed
from consistency_lab.similarity.checks import ranked
from consistency_lab.similarity.named import sample_names
from consistency_lab.similarity.quantities import higher_is_alike

BRIGHTENED = (
    "Below: the largest difference of the channels, times the factor at its side, which is one for all; black where there is none, white "
    "where it is more than white can show."
)


def draw_differences(columns: Sequence[tuple[str, np.ndarray, np.ndarray]], sides: tuple[str, str]) -> Figure:
    """Each column two pictures ``(C, H, W)``, 0 to 255, and the largest difference of their channels, black where there is none, and
    `brightened` by one factor for all columns, which stands at its side.

    Args:
        columns: title and pictures.
        sides: whose the upper and the middle ones are.
    """
    apart = [np.abs(one.astype(float) - other).max(0, keepdims=True) for _, one, other in columns]
    factor = brightened(apart)
    figure, axes = new_figure(0.9 + 1.15 * len(columns), 3.9, 3, max(len(columns), 1))
    for column, (title, *pictures), difference in zip(axes.T[: len(columns)], columns, apart, strict=True):
        for ax, picture in zip(column, (*pictures, factor * difference), strict=True):
            if picture.shape[0] in (1, 3):
                shown = picture.transpose(1, 2, 0)
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if shown.shape[-1] == 1 else {}
                ax.imshow(shown[..., 0] if grey else shown, interpolation="nearest", **grey)
            else:
                note(ax, f"{picture.shape[0]} channels")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        column[0].set_title(title, fontsize=7.5, fontweight="normal")
    for ax, side in zip(
        axes[:, 0], (*sides, f"difference ×\u202f{factor}" if factor > 1 else "difference"), strict=True
    ):
        ax.set_ylabel(shortened(side))
    return figure


def brightened(apart: Sequence[np.ndarray]) -> int:
    """By what differences of pixels, 0 to 255, are multiplied to be seen: the largest power of two with which the 99 % quantile of the
    median picture (of those that are not all zero) is not yet white. What would be brighter than white is white.
    """
    there = [np.quantile(each[each > 0], 0.99) for each in apart if (each > 0).any()]
    return 2 ** max(0, int(np.floor(np.log2(255 / np.median(there))))) if there else 1


def shortened(name: str, length: int = 16) -> str:
    """The end of a long name, which is where the names of files differ."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def differences_frame(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """Of the two models that are least alike: the worst samples, the median one and the best. Columns place, sample, name, first, second,
    distance, share (of the summed distance of all samples, of all pairs).
    """
    ds = reading.need(ds, "comparison", "distance", "extreme_images")
    last = ds["distance"].isel(t=-1).sel(metric=metric)
    mean = last.mean("pair")
    pairs = last.mean("sample").values
    pair = int(np.argmin(pairs) if higher_is_alike(ds, metric) else np.argmax(pairs))
    models = reading.names(ds, "model")
    first, second = (models[int(ds[side].values[pair])] for side in ("first", "second"))
    order, there = ranked(ds, metric), set(ds["extreme"].values.tolist())
    numbers, called = ds["sample"].values, sample_names(ds)
    wanted = [("worst", order[-1]), ("second worst", order[-2]), ("median", order[len(order) // 2]), ("best", order[0])]
    total = float(mean.sum())
    rows = []
    for place, i in wanted[: len(order)]:
        if int(numbers[i]) in there:
            share = float(mean.values[i]) / total if total > 0 else float("nan")
            rows.append(
                (place, int(numbers[i]), called[int(numbers[i])], first, second, float(last.values[pair, i]), share)
            )
    return pd.DataFrame(rows, columns=["place", "sample", "name", "first", "second", "distance", "share"])


@themed
def differences_figure(ds: xr.Dataset, metric: str) -> Figure:
    """The images of `differences_frame` and where they differ."""
    table = differences_frame(ds, metric)
    columns = []
    for row in table.to_dict("records"):
        pictures = ds["extreme_images"].sel(extreme=row["sample"])
        one, other = (pictures.sel(model=row[side]).values for side in ("first", "second"))
        columns.append((f"{row['place']}: {shortened(row['name'])}\n{metric} {row['distance']:.3g}", one, other))
    return draw_differences(columns, (str(table["first"].iloc[0]), str(table["second"].iloc[0])))
