"""How alike the x0 estimates are along the noise levels, for every diffusion family and metric, LPIPS at full size among them."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, said
from matplotlib.figure import Figure

from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import curves

SHOWN = {"likeness": "", "perceptual": "perceptual"}  # study -> name of its figure
SAID = ("mse", "lpips")  # metrics that the sentence speaks of


def sentence(table: pd.DataFrame) -> str:
    parts = []
    spoken = table[table["panel"].str.startswith(SAID)].dropna(subset=["value"])
    for (study, panel, name), line in spoken.groupby(["study", "panel", "name"], sort=False):
        end, low = line.loc[line["t"].idxmin()], line.loc[line["value"].idxmin()]
        size = " at full size" if study == "perceptual" else ""
        parts.append(f"{name} by {panel}{size} {_at(low)} at its lowest and {_at(end)} at the end")
    return "Scores of the estimates from the same noise: " + "; ".join(parts) + "."


def _at(row: pd.Series) -> str:
    return f"{said(row['value'], row['low'], row['high'], 2)} (t = {row['t']:.2g})"


def produce(source: Source) -> Drawn:
    tables, missing = {}, []
    for study in SHOWN:
        try:
            families = frames.families(source.rows(study))
        except frames.MissingRows as reason:
            missing.append(reason)
            continue
        curves_of = [frames.along_t(families, metric).assign(panel=metric) for metric in frames.metrics_of(families)]
        tables[study] = pd.concat(curves_of, ignore_index=True).assign(study=study)
    if not tables:
        raise missing[0]
    figures = {SHOWN[study]: (_figure(table), table) for study, table in tables.items()}
    return Drawn(figures, sentence(pd.concat(tables.values(), ignore_index=True)))


def _figure(table: pd.DataFrame) -> Figure:
    labels = {panel: f"score, {panel}\n(no unit)" for panel in dict.fromkeys(table["panel"])}
    limits = (min(-0.05, float(table["value"].min())), 1.03)
    return curves(
        table, "t", "time t  (1 = noise, 0 = data)", labels, lines={"other noise": 0.0}, ylim=limits, height=2.3
    )


if __name__ == "__main__":
    main(produce, __file__)
