"""A race as a kind of result. `pyproject.toml` names it under "consistency_lab.kinds", where reports and notebooks find it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import interval_of
from consistency_lab.kinds.base import Drawing, Kind, Section, Table
from consistency_lab.kinds.numbers import number, records, with_interval
from consistency_lab.paper.plots import race as plots
from consistency_lab.paper.race.table import AGAINST, finals_table, race_table
from consistency_lab.plots.reading import need


class Race(Kind):
    """Who reached the last target when, against which control, and where everybody ended."""

    place = 110

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        target, fraction = float(ds["target_loss"][-1]), float(ds["target"][-1])
        said = ""
        if "target_qualified" in ds:
            good = bool(ds["target_qualified"][-1])
            said = " (qualified)" if good else " (NOT qualified: what needs no training is as good)"
        yield Drawing(
            "curves",
            plots.curves(ds),
            plots.curves_frame(ds),
            "Held-out loss over training steps, for the fastest contestant of every role.",
            f"Target: {number(target)}, reached by the target pilot at {100 * fraction:g} % of its run{said}. Bands: 95 % over seeds.",
        )
        yield Drawing(
            "speedups",
            plots.speedups(ds),
            race_table(ds),
            "How many times sooner than each kind of control each contestant reached the target.",
            "The control's crossing over the contestant's, geometric mean over seeds with its 95 % interval. Arrows are bounds that runs "
            "which never arrived leave.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        table = race_table(ds)
        return {"sentence": recipe_sentence(table), "rows": records(table), "finals": records(finals_table(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        ds = need(ds, "race", "pilot_seconds", "total_variation", "effective_share", "batch", "target_qualified")
        table = race_table(ds)
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
        sooner = ("times sooner", "with pilot", "with pilot, in time")
        ends = [
            (row["contestant"], *(_end(row, name) for name in ("loss", "frechet")))
            for row in finals_table(ds).to_dict("records")
        ]
        tables = [
            Table(("contestant", "control", *sooner, "total variation", "effective batch"), rows),
            Table(("at the end", "held-out loss [95 %]", str(ds["metric"].values[1])), ends),
        ]
        said = [sentence] if (sentence := recipe_sentence(table)) else []
        return Section("Who reaches the target first?", [*said, *self.figures(ds), *tables])


_COUNTED = {"": "in steps", "pilot_": "with the steps of its pilot", "pilot_seconds_": "in time with pilot and probes"}


def recipe_sentence(table: pd.DataFrame) -> str:
    """Whether the recipe was faster than uniform training with annealing (constant rate if none was annealed), in one sentence.

    Args:
        table: of `race_table`.
    """
    own = table[(table["role"] == "recipe") & table["fastest"]]
    against = next((label for label in ("annealed", "control") if (own["against"] == AGAINST[label]).any()), None)
    if against is None:
        return ""
    rows = own[own["against"] == AGAINST[against]].sort_values(["censored", "crossing"]).to_dict("records")
    first, count = rows[0], len(rows)
    who = (
        f"the fastest of {count} recipes ({first['contestant']})"
        if count > 1
        else f"the recipe ({first['contestant']})"
    )
    told = [f"{_times(first, prefix)} {words} ({_verdict(first, prefix)})" for prefix, words in _COUNTED.items()]
    return f"Against {first['control']}, {who} reached the target sooner by a factor of {', '.join(told)}."


def _verdict(row: Mapping[Any, Any], prefix: str) -> str:
    """Whether a speed-up is one, as far as its interval, or the bound that censored runs leave, tells."""
    (value, low, high), bound = interval_of(row, f"{prefix}speedup"), row[f"{prefix}bound"]
    if bound:
        faster, slower = bound == "at least" and value >= 1, bound == "at most" and value <= 1
    elif np.isfinite(low):
        faster, slower = low > 1, high < 1
    else:
        return "no interval"
    return "faster" if faster else "slower" if slower else "not told apart"


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
