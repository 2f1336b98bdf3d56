"""One sample of a comparison at one time: what every model makes of that noise, and where it stands among all samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.kinds.gallery import shown_samples
from consistency_lab.kinds.numbers import number, score_text
from consistency_lab.plots import frames, reading
from consistency_lab.plots.differences import shortened
from consistency_lab.plots.gallery import gallery_rows, show_image
from consistency_lab.plots.theme import INK, MUTED, NULL, SAME, blank_figure, label_lines, themed, time_axis
from consistency_lab.similarity.named import sample_name
from consistency_lab.similarity.quantities import higher_is_alike

LOOKS: dict[str, tuple[str, Any]] = {"family": (SAME, "-"), "null": (NULL, (0, (6, 2)))}


def sample_labels(ds: xr.Dataset) -> list[int]:
    """The numbers of the noise images that can be looked at: those whose images the comparison carries, else all."""
    every = ds["sample"].values if "sample" in ds.coords else np.arange(ds.sizes["sample"])
    return [int(every[i]) for i in (shown_samples(ds) if "images" in ds else range(ds.sizes["sample"]))]


@themed
def sample_view(ds: xr.Dataset, t: float, sample: int, metric: str) -> Figure:
    """Upper: the x0 estimates of one noise image at a time. Lower: its distance between models along t, among all samples'.

    Args:
        ds: a comparison.
        t: one of its times. sample: one of `sample_labels`. metric: one of its metrics.
    """
    ds = reading.need(ds, "comparison", "log_snr")
    table = frames.curves(ds, metric)
    column = sample_labels(ds).index(sample)
    rows = gallery_rows(ds, t) if "images" in ds else []
    figure = blank_figure(8.4, 4.6 if rows else 3.2)
    lower: Any = figure
    if rows:
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.4, 3.2])
        upper, lower = halves
        tiles = upper.subplots(1, len(rows), squeeze=False)
        for ax, (title, pixels) in zip(tiles[0], rows, strict=True):
            show_image(ax, pixels[column])
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            ax.set_title(title, fontsize=7.5, fontweight="normal", loc="center")
    ax = lower.subplots()
    means = table[(table["quantity"] == "distance") & table["group"].isin(["family", "null"])]
    own = sample_values(ds, sample, metric)
    logarithmic = not higher_is_alike(ds, metric) and bool((own > 0).any())
    if ds.sizes["t"] == 1:
        _points(ax, means, float(own[0]), shortened(sample_name(ds, sample)))
        ax.set_xlabel(reading.quantity(ds, metric))
        ax.set_xscale("log" if logarithmic else "linear")
        return figure
    ends = []
    for (group, name), line in means.groupby(["group", "name"], sort=False):
        colour, style = LOOKS[str(group)]
        ax.fill_between(line["t"], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
        ax.plot(line["t"], line["value"], color=colour, ls=style)
        ends.append((float(line["value"].iloc[-1]), f"{name}, mean", colour))
    ax.plot(ds["t"].values, own, color=INK, lw=1.4, ls=(0, (1.5, 1.2)))
    ends.append((float(own[-1]), f"sample {shortened(sample_name(ds, sample))}", INK))
    ax.axvline(t, color=MUTED, lw=1)
    ax.set_ylabel(reading.quantity(ds, metric).replace(" (", "\n(", 1))
    if logarithmic:
        ax.set_yscale("log", nonpositive="mask")
    time_axis(ax, ds["t"].values, ds["log_snr"].values)
    label_lines(ax, ends)
    return figure


def _points(ax: Axes, means: pd.DataFrame, own: float, sample: str) -> None:
    """A comparison that has the final images alone: the sample, and both means with their intervals."""
    names = [f"sample {sample}"]
    ax.plot(own, 0, "o", color=INK, ms=5)
    for y, row in enumerate(means.to_dict("records"), start=1):
        colour = LOOKS[row["group"]][0]
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=2)
        ax.plot(row["value"], y, "o", color=colour, ms=5)
        names.append(f"{row['name']}, mean")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)


def sample_values(ds: xr.Dataset, sample: int, metric: str) -> np.ndarray:
    """The metric between the models' estimates of one sample, mean over pairs, along t: ``(T,)``."""
    labels = sample_labels(ds)
    place = shown_samples(ds)[labels.index(sample)] if "images" in ds else labels.index(sample)
    return ds["distance"].sel(metric=metric).isel(sample=place).transpose("t", "pair").values.mean(1)


def sample_sentence(ds: xr.Dataset, t: float, sample: int, metric: str) -> str:
    """The score of all samples at that time with its interval, and the distance of this one."""
    i = int(np.flatnonzero(ds["t"].values == t)[0])
    one = ds.sel(metric=metric).isel(t=i)
    own = f"sample {sample_name(ds, sample)} at t = {t:.2f}: {reading.quantity(ds, metric)} {number(sample_values(ds, sample, metric)[i])}"
    own += (
        f", mean of all {number(float(one['distance'].mean()))}, under other noise {number(float(one['null'].mean()))}"
    )
    score = score_text(*interval_of(one, "family_score"))
    if score == "undefined":
        return f"{own}. No score: {reading.why_undefined(ds, metric)}."
    return f"{own}. Score of all samples at this time {score} ({ds.attrs.get('interval', 'interval not recorded')})."
