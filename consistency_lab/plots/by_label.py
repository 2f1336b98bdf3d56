"""A comparison by what was asked for: the score of each label, prompt or class, within its own null."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import as_columns, interval_of, mean_interval
from consistency_lab.plots import reading
from consistency_lab.plots.theme import NULL, SAME, new_figure, themed
from consistency_lab.similarity.quantities import higher_is_alike, is_scored
from consistency_lab.similarity.statistics import pair_score

SHOWN = 40  # labels, those that are least alike


def by_label_frame(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """A row for each label, the least alike first: label, samples, distance and score, each with its 95 % interval over the label's noise.

    Both are means over all pairs of models. Labels of fewer than three samples have no interval.
    """
    ds = reading.need(ds, "comparison", "distance", "null", "label")
    last = ds.isel(t=-1).sel(metric=metric)
    distance, null = (last[name].transpose("pair", "sample").values.mean(0) for name in ("distance", "null"))
    labels, names = ds["label"].values, label_names(ds)
    blocks = ds["block"].values if "block" in ds.coords else None
    rows, bounded = [], reading.drawn_back_by(ds, metric)
    for label in np.unique(labels):
        at = labels == label
        score = pair_score(
            distance[at],
            null[at] if is_scored(ds, metric) else np.full(at.sum(), np.nan),
            blocks=blocks if blocks is None else blocks[at],
        )
        numbers = {**as_columns("distance", bounded(mean_interval(distance[at]))), **as_columns("score", score)}
        rows.append({"label": names.get(int(label), str(label)), "samples": int(at.sum()), **numbers})
    return pd.DataFrame(rows).sort_values("distance", ascending=higher_is_alike(ds, metric), ignore_index=True)


def label_names(ds: xr.Dataset) -> dict[int, str]:
    """What the labels of a comparison stand for, where it says: sub-folders or prompts."""
    known = json.loads(ds.attrs.get("provenance", "{}"))
    names = known.get("folders") or known.get("prompts") or ()
    return {number: str(name) for number, name in enumerate(names)}


@themed
def by_label_figure(ds: xr.Dataset, metric: str) -> Figure:
    """The score of each label with its interval, the least alike on top; the distance, for a metric without a score."""
    table = by_label_frame(ds, metric).head(SHOWN).iloc[::-1]
    what = "score" if is_scored(ds, metric) and table["score"].notna().any() else "distance"
    value, low, high = interval_of(table, what)
    figure, axes = new_figure(6.4, 1.1 + 0.24 * len(table), 1, 1)
    ax, places = axes[0, 0], np.arange(len(table))
    ax.hlines(places, low, high, color=SAME, lw=1.6)
    ax.plot(value, places, "o", color=SAME, ms=4)
    if what == "score":
        ax.axvline(0.0, color=NULL, ls=(0, (5, 1.5)), lw=1)
    ax.set_yticks(places, [f"{_cut(row['label'])} ({row['samples']})" for row in table.to_dict("records")])
    ax.set_xlabel("consistency score within the label (no unit)" if what == "score" else reading.quantity(ds, metric))
    return figure


def _cut(name: str) -> str:
    return name if len(name) < 42 else f"{name[:40]}…"
