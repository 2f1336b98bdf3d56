"""Quality against training steps for the fastest contestant of every role of a race, beside what needs no training."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, said

from consistency_lab.paper.plots.race import quality_frame, shown
from consistency_lab.paper.plots.studies import Panel, curves, forest
from consistency_lab.paper.race.table import finals_table


def sentence(table: pd.DataFrame, qualified: bool) -> str:
    last = [line.sort_values("step").iloc[-1] for _, line in table.groupby("name", sort=False)]
    parts = [
        f"{row['name']} {said(row['value'], row['low'], row['high'])} after {row['step']:.0f} steps" for row in last
    ]
    caution = (
        ""
        if qualified
        else "; this distance cannot tell a trained model from what needs no training, so it decides nothing"
    )
    return "Frechet distance at the end: " + listed(parts) + caution + "."


def produce(source: Source) -> Drawn:
    race = source.race("standard")
    table = quality_frame(race, shown(race)).assign(panel="frechet")
    ends = finals_table(race)
    references = ends[ends["steps"].isna()]
    lines = dict(zip(references["contestant"], references["frechet"], strict=True))
    metric = str(race["metric"].values[1])
    high = 1.3 * max(table["value"].quantile(0.75), references["frechet"].drop_duplicates().median())
    lines = {name: value for name, value in lines.items() if value < high}
    label = f"{metric.replace(' (', chr(10) + '(')}\n(no unit; log scale, lower is better)"
    if table["name"].is_unique:  # evaluated once: no curves
        once = table.sort_values("step", kind="stable").rename(columns={"low": "value_low", "high": "value_high"})
        once = once.assign(group=[f"after {step} steps" for step in once["step"]])
        figure = forest(once, [Panel("value", label, lines=lines, log=True)])
    else:
        text, both = "training step (log scale)", {"logx": True, "logy": True}
        figure = curves(table, "step", text, {"frechet": label}, lines=lines, height=4.2, **both)
    return Drawn({"": (figure, table)}, sentence(table, bool(race["qualified"].values[1])))


if __name__ == "__main__":
    main(produce, __file__)
