"""One basin, or one image from many? The barrier between two models' weights against the consistency of their images."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import scatter


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for _, row in table[table["group"] == "straight line"].iterrows():
        level = "above" if row["barrier"] > row["mean_loss"] else "below"
        parts.append(
            f"{row['name']}: score {of(row, 'consistency')}, barrier {of(row, 'barrier')}, {level} the data mean's {row['mean_loss']:.3g}"
        )
    rest = []
    for group, part in table[table["group"] != "straight line"].groupby("group", sort=False):
        rest.append(f"the {group} {part['barrier'].min():.2g} to {part['barrier'].max():.2g}")
    return (
        "Straight between the weights of two models - " + "; ".join(parts) + (f"; on {listed(rest)}." if rest else ".")
    )


def produce(source: Source) -> Drawn:
    found, table = frames.probes(source.rows("why"), "connectivity"), []
    paths = [
        name.removeprefix("barrier_")
        for name in found
        if name.startswith("barrier_") and not name.endswith(("_low", "_high"))
    ]
    for row in found.to_dict("records"):
        for path in paths:
            if pd.notna(row[f"barrier_{path}"]):
                barrier = {f"barrier{end}": row[f"barrier_{path}{end}"] for end in frames.ENDS}
                consistency = {f"consistency{end}": row[f"consistency{end}"] for end in frames.ENDS}
                table.append(
                    {"name": row["name"], "group": path, **barrier, **consistency, "mean_loss": row["mean_loss"]}
                )
    frame = pd.DataFrame(table)
    labels = (
        "barrier: loss above the ends' (eps units, mean over pixels)",
        "consistency score of their images\n(mse, no unit)",
    )
    return Drawn(
        {
            "": (
                scatter(
                    frame, "barrier", "consistency", *labels, ylim=(min(-0.02, frame["consistency_low"].min()), 1.02)
                ),
                frame,
            )
        },
        sentence(frame),
    )


if __name__ == "__main__":
    main(produce, __file__)
