"""How alike the x0 estimates are along the noise levels, for every diffusion family and metric, LPIPS at full size among them."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, said

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import curves


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for (panel, name), line in table.dropna(subset=["value"]).groupby(["panel", "name"], sort=False):
        ends = line.loc[line["t"].idxmin()]
        low = line.loc[line["value"].idxmin()]
        parts.append(
            f"{name} by {panel} {said(ends['value'], ends['low'], ends['high'], 2)} at t = {ends['t']:.2g}, lowest "
            f"{said(low['value'], low['low'], low['high'], 2)} at t = {low['t']:.2g}"
        )
    return "Score of the estimates: " + listed(parts) + "."


def produce(source: Source) -> Drawn:
    parts = []
    try:
        studies = {"": source.rows("likeness")}
    except frames.MissingRows as missing:
        studies, reason = {}, missing
    try:
        studies[", full size"] = source.rows("perceptual")
    except frames.MissingRows:
        if not studies:
            raise reason from None  # neither is there
    for suffix, rows in studies.items():
        families = frames.families(rows)
        for metric in frames.metrics_of(families):
            parts.append(frames.along_t(families, metric).assign(panel=f"{metric}{suffix}"))
    table = pd.concat(parts, ignore_index=True)
    labels = {panel: f"consistency score, {panel}\n(no unit)" for panel in dict.fromkeys(table["panel"])}
    shown = table["value"].min()
    figure = curves(
        table,
        "t",
        "time t  (1 = noise, 0 = data)",
        labels,
        lines={"other noise": 0.0},
        ylim=(min(-0.05, shown), 1.03),
        height=2.3,
    )
    return Drawn({"": (figure, table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
