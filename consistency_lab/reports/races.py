"""From races and audits of timestep samplers to what the page's template needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.intervals import interval_of
from consistency_lab.paper.race.table import finals_table, race_table
from consistency_lab.plots import race as drawn
from consistency_lab.plots import timesteps as audits
from consistency_lab.plots.reading import need
from consistency_lab.reports.findings import made
from consistency_lab.reports.numbers import number, with_interval
from consistency_lab.reports.svg import picture


def race(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """Who reached the last target when, against which control, and where everybody ended."""
    ds = need(ds, "race", "pilot_seconds", "total_variation", "effective_share", "batch", "target_qualified")
    table = race_table(ds)
    target, fraction = float(ds["target_loss"][-1]), float(ds["target"][-1])
    said = "qualified" if bool(ds["target_qualified"][-1]) else "NOT qualified: what needs no training is as good"
    curves = picture(
        drawn.curves(ds),
        f"{key}-curves",
        "Held-out loss over training steps, for the fastest contestant of every role.",
        f"Target: {number(target)}, reached by the target pilot at {100 * fraction:g} % of its run ({said}). Bands: 95 % over seeds.",
        drawn.curves_frame(ds, drawn.shown(ds)),
    )
    speedups = picture(
        drawn.speedups(ds),
        f"{key}-speedups",
        "How many times sooner than each kind of control each contestant reached the target.",
        "The control's crossing over the contestant's, geometric mean over seeds with its 95 % interval. Arrows are bounds that runs "
        "which never arrived leave.",
        table,
    )
    rows = [
        (
            row["contestant"],
            row["control"],
            _times(row, ""),
            _times(row, "pilot_"),
            _times(row, "pilot_seconds_"),
            number(row["total_variation"]),
            number(row["effective_sample_size"]),
        )
        for row in table[table["fastest"]].to_dict("records")
    ]
    ends = [
        (row["contestant"], *(_end(row, name) for name in ("loss", "frechet")))
        for row in finals_table(ds).to_dict("records")
    ]
    head = (
        "contestant",
        "control",
        "times sooner",
        "with pilot",
        "with pilot, in time",
        "total variation",
        "effective batch",
    )
    return {
        "kind": "race",
        "key": key,
        "title": "Who reaches the target first?",
        "pictures": [curves, speedups],
        "tables": [
            {"head": head, "rows": rows},
            {"head": ("at the end", "held-out loss [95 %]", str(ds["metric"].values[1])), "rows": ends},
        ],
        **made(ds),
    }


def audit(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """What timestep samplers draw over a run."""
    figure = picture(
        audits.audit(ds),
        f"{key}-audit",
        "Density of timesteps of each sampler over a run, and how far it is from uniform.",
        "Left: mean over the run. Right: total variation from uniform and the share of a batch that is left once it is weighted back.",
        audits.audit_frame(ds),
    )
    rows = [
        (str(name), number(float(part["run_total_variation"])), number(float(part["effective_share"].mean())))
        for name in ds["sampler"].values
        for part in [ds.sel(sampler=name)]
    ]
    table = {"head": ("sampler", "total variation of the run's mean", "effective share, mean"), "rows": rows}
    return {
        "kind": "timesteps",
        "key": key,
        "title": "What do timestep samplers draw?",
        "pictures": [figure],
        "tables": [table],
        **made(ds),
    }


def _times(row: Mapping[Any, Any], prefix: str) -> str:
    """A speed-up with its interval, or what censored runs leave of it."""
    (value, low, high), bound = interval_of(row, f"{prefix}speedup"), row[f"{prefix}bound"]
    if bound == "unknown":
        return "unknown: neither always arrived"
    if bound:
        return f"{bound} {number(value)}"
    return with_interval(value, low, high) if np.isfinite(low) else number(value)


def _end(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = map(float, interval_of(row, name))
    if not np.isfinite(value):
        return "none"
    return with_interval(value, low, high) if np.isfinite(low) else number(value)
