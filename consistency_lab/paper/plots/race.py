"""Figures of a race: the curves with the target, and speed-ups with what they were measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.intervals import as_columns, as_value, interval_names, interval_of, mean_interval
from consistency_lab.paper.plots.studies import NAMES, plain_ticks
from consistency_lab.paper.race.crossing import haste
from consistency_lab.paper.race.table import crossings, fastest, race_table
from consistency_lab.plots.fitting import balanced
from consistency_lab.plots.look import current
from consistency_lab.plots.reading import need
from consistency_lab.plots.theme import (
    DASHES,
    INK,
    MUTED,
    NULL,
    REFERENCE,
    SAME,
    SERIES,
    legend_beside,
    new_figure,
    note,
    themed,
)

_MOST = 8  # curves that eyes can tell apart
MOST = 12  # contestants of a panel
_AGAINST = ((SAME, "o"), (REFERENCE, "s"))  # how speed-ups over each kind of control look


def curves_frame(ds: xr.Dataset, names: list[str] | None = None) -> pd.DataFrame:
    """Columns contestant, step, loss, loss_low, loss_high: means over the seeds that did not diverge, with 95 % t intervals of the log."""
    ds = need(ds, "race", "loss", "diverged_at")
    rows = []
    for name in names or [str(each) for each in ds["contestant"].values]:
        part = ds.sel(contestant=name)
        loss = part["loss"].values[np.isnan(part["diverged_at"].values)]
        there = np.isfinite(loss).all(0) if len(loss) else np.zeros(ds.sizes["step"], dtype=bool)
        if there.any():
            mean = as_columns("loss", map(np.exp, mean_interval(np.log(loss[:, there]), axis=0)))
            rows.append(pd.DataFrame({"contestant": name, "step": ds["step"].values[there], **mean}))
    columns = ["contestant", "step", *interval_names("loss")]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def quality_frame(ds: xr.Dataset, names: list[str] | None = None) -> pd.DataFrame:
    """Columns name, step, value, low, high: the Frechet distance, means over the seeds that did not diverge with 95 % t intervals."""
    ds = need(ds, "race", "frechet", "evaluation_step", "diverged_at")
    parts = []
    for name in names or [str(each) for each in ds["contestant"].values]:
        part = ds.sel(contestant=name)
        sound = np.isnan(part["diverged_at"].values)
        value, step = part["frechet"].values[sound], part["evaluation_step"].values[sound]
        there = np.isfinite(value).all(0) if len(value) else np.zeros(ds.sizes["evaluation"], dtype=bool)
        if there.any():
            mean = as_value(mean_interval(value[:, there], axis=0))
            parts.append(pd.DataFrame({"name": name, "step": step[0, there].astype(int), **mean}))
    columns_of = ["name", "step", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns_of)


def shown(ds: xr.Dataset) -> list[str]:
    """The contestants whose curves are drawn: the control, and of every role the fastest entry at its fastest length."""
    ds = need(ds, "race", "crossing", "censored", "role")
    target = float(ds["target"].values[-1])
    names, roles = ([str(x) for x in ds[key].values] for key in ("contestant", "role"))
    best = [
        fastest(ds, [n for n, r in zip(names, roles, strict=True) if r == role], target)
        for role in dict.fromkeys(roles)
    ]
    return best[:_MOST]


@themed
def curves(ds: xr.Dataset) -> Figure:
    """Loss on the frozen held-out batch over steps, for the fastest contestant of every role; the target is the dashed line."""
    ds = need(ds, "race", "loss", "target_loss")
    names = shown(ds)
    table = curves_frame(ds, names)
    figure, axes = new_figure(7.6, 4.2)
    ax = axes[0, 0]
    for i, (name, line) in enumerate(table.groupby("contestant", sort=False)):
        colour = SERIES[i % len(SERIES)]
        ax.plot(line["step"], line["loss"], color=colour, ls=DASHES[i % len(DASHES)], lw=1.5, label=str(name))
        _, low, high = interval_of(line, "loss")
        if np.isfinite(low).all():
            ax.fill_between(line["step"], low, high, color=colour, alpha=0.15, lw=0)
    if table.empty:
        note(ax, "no run has a record yet")
    else:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.margins(x=0)
        # What happens far above the targets is the same for everybody.
        ax.set_ylim(
            float(table["loss"].min()) * 0.97, min(float(table["loss"].max()), 3 * float(ds["target_loss"].max()))
        )
        if current().narrow:
            legend_beside(ax)
        else:
            ax.legend(frameon=False, fontsize=8, loc="upper right")
        for axis in (ax.xaxis, ax.yaxis):
            plain_ticks(axis)
    # Beside the axes, where no curve runs. The lowest is named below its line, the others above theirs: two may be close.
    lowest = float(ds["target_loss"].min()) if ds.sizes["target"] > 1 else None
    for fraction, target in zip(ds["target"].values, ds["target_loss"].values, strict=True):
        ax.axhline(float(target), color=MUTED, ls=(0, (4, 3)), lw=1)
        text, va = f"target: {100 * float(fraction):g} % of the pilot", "top" if float(target) == lowest else "bottom"
        at, across = (1.01, float(target)), ("axes fraction", "data")
        ax.annotate(text, at, xycoords=across, fontsize=7.5, color=MUTED, va=va, annotation_clip=False)
    ax.set_xlabel("training step (log scale)")
    ax.set_ylabel("loss on the frozen held-out batch\n(uniform t, averaged weights; log scale)")
    return figure


def chosen(ds: xr.Dataset, most: int = MOST) -> list[str]:
    """The contestants that matter, slowest first: the fastest of every role (see `shown`), then whoever else is fastest.

    Of the lengths of one entry only the fastest is among them.
    """
    ds = need(ds, "race", "crossing", "censored", "role", "entry")
    target = float(ds["target"].values[-1])
    names, entries = ([str(x) for x in ds[key].values] for key in ("contestant", "entry"))
    members: dict[str, list[str]] = {}
    for name, entry in zip(names, entries, strict=True):
        members.setdefault(entry, []).append(name)

    def when(name: str) -> tuple[float, ...]:
        return haste(crossings(ds, name, target))

    roles = shown(ds)
    rest = sorted((fastest(ds, own, target) for own in members.values()), key=when)
    return sorted(list(dict.fromkeys([*roles, *rest]))[:most], key=when, reverse=True)


@themed
def speedups(ds: xr.Dataset) -> Figure:
    """How many times sooner than two kinds of control the contestants that matter reached the last target, with 95 % intervals over seeds.

    The kinds are the first two of `race_table`: uniform times at a constant rate, and the fastest with annealing. An arrow is a
    bound that censored runs leave; a cross stands where nothing is known. `race_table` has everybody, against every control.
    """
    ds = need(ds, "race", "crossing", "censored", "role")
    table, names = race_table(ds), chosen(ds)
    kinds = list(dict.fromkeys(table["against"]))[: len(_AGAINST)]
    table = table[table["contestant"].isin(names) & table["against"].isin(kinds)]
    narrow = current().narrow
    figure, axes = new_figure(8.4, 1.5 + (0.48 if narrow else 0.3) * len(names))
    ax = axes[0, 0]
    finite = table[interval_names("speedup")].to_numpy(dtype=float)
    finite = finite[np.isfinite(finite) & (finite > 0)]
    low, high = (min(0.5, finite.min() * 0.9), max(2.0, finite.max() * 1.1)) if len(finite) else (0.5, 2.0)
    low, high = float(max(low, 0.05)), float(min(high, 20.0))
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.axvline(1.0, color=MUTED, lw=1)
    for i, (kind, (colour, mark)) in enumerate(zip(kinds, _AGAINST, strict=False)):
        part = table[table["against"] == kind].set_index("contestant").loc[names]
        shift = 0.34 * ((i + 0.5) / len(kinds) - 0.5)
        for y, row in enumerate(part.to_dict("records")):
            _speedup(ax, y + shift, row, (low, high), colour, mark)
        control = part["control"].iloc[0]
        ax.plot([], [], mark, color=colour, ms=4.5, label=f"than {kind}" + (f": {control}" if control != kind else ""))
    ax.set_yticks(
        range(len(names)),
        [balanced(name, NAMES) for name in names] if narrow else names,
        fontsize=8,
    )
    ax.set_ylim(-0.6, len(names) - 0.4)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10) if low <= tick <= high]
    ax.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xlabel("times sooner at the target (log scale)")
    figure.legend(frameon=False, fontsize=8, loc="outside upper left")
    said = []
    if len(names) < ds.sizes["contestant"]:
        said.append(
            f"{len(names)} of {ds.sizes['contestant']}: the fastest of every role, then whoever else is fastest. All are in the table."
        )
    if (table["bound"] != "").any():
        said.append("Arrow: a bound, as some seed never arrived. Cross: unknown.")
    if said:
        figure.supxlabel(" ".join(said), fontsize=7.5, color=MUTED, x=0.01, ha="left")
    return figure


def _speedup(ax: Axes, y: float, row: Mapping[Any, Any], edges: tuple[float, float], colour: str, mark: str) -> None:
    if row["bound"] == "unknown":
        ax.plot([1.0], [y], marker="x", color=NULL, ms=5)
        return
    speedup = interval_of(row, "speedup")
    if np.isfinite(speedup.low):
        ax.plot(np.clip([speedup.low, speedup.high], *edges), [y, y], color=colour, lw=1.4)
    marker = {"": mark, "at least": ">", "at most": "<"}[str(row["bound"])]
    ax.plot([float(np.clip(speedup.estimate, *edges))], [y], marker=marker, color=colour, ms=4.5, zorder=3)
