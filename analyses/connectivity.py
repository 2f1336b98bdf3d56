"""One basin, or one image from many? The barrier between two models' weights against the consistency of their images."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.intervals import as_columns, interval_of, is_bound
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import scatter

STRAIGHT = "straight line"


def sentence(table: pd.DataFrame) -> str:
    """One basin would leave no barrier on the straight line; a path without one says that the minima are connected all the same."""
    straight, parts = table[table["group"] == STRAIGHT], []
    for _, row in straight.iterrows():
        parts.append(f"{row['name']} score {of(row, 'consistency')} and barrier {of(row, 'barrier')}")
    apart = int((straight["barrier_low"] > 0).sum())
    rest = []
    for group, part in table[table["group"] != STRAIGHT].groupby("group", sort=False):
        rest.append(f"on the {group} it is {_each(part)}")
    lower = int((straight["barrier_high"] < straight["mean_loss"]).sum())
    return (
        f"Two models of a family: {'; '.join(parts)} (loss in eps units, straight between the weights): alike outputs, yet in {apart} of "
        f"{len(straight)} families not one basin, though in {lower} the barrier stays below the loss of the data mean"
        + (f"; {'; '.join(rest)}." if rest else ".")
    )


def _each(part: pd.DataFrame) -> str:
    return listed(f"{row['name']} {of(row, 'barrier')}" for _, row in part.iterrows())


def produce(source: Source) -> Drawn:
    found, table = frames.probes(source.rows("why"), "connectivity"), []
    paths = [name.removeprefix("barrier_") for name in found if name.startswith("barrier_") and not is_bound(name)]
    for row in found.to_dict("records"):
        for path in paths:
            if pd.notna(row[f"barrier_{path}"]):
                barrier = as_columns("barrier", interval_of(row, f"barrier_{path}"))
                consistency = as_columns("consistency", interval_of(row, "consistency"))
                table.append(
                    {"name": row["name"], "group": path, **barrier, **consistency, "mean_loss": row["mean_loss"]}
                )
    frame = pd.DataFrame(table)
    labels = (
        "barrier: loss above the ends' (eps units, mean over pixels; log scale)",
        "consistency score of their images\n(mse, no unit; 0 = other noise, 1 = same)",
    )
    return Drawn({"": (scatter(frame, "barrier", "consistency", *labels, logx=True), frame)}, sentence(frame))


if __name__ == "__main__":
    main(produce, __file__)
