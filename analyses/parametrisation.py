"""Parametrisation and objective (the paper's figure 9): models that predict eps, x0, v ... within each way and between ways."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, of, relation

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import Panel, forest

FIRST, SECOND = (
    "eps",
    "x0",
)  # noise prediction and mean prediction by the same network, each with the error in its own units


def sentence(table: pd.DataFrame) -> str:
    by = table.set_index("name")
    pair = f"{FIRST} | {SECOND}"
    if not {FIRST, SECOND, pair} <= set(by.index):
        return f"The comparison of eps with mean prediction is open: the rows {FIRST}, {SECOND} and {pair} are not all finished."
    eps, mean, between = by.loc[FIRST], by.loc[SECOND], by.loc[pair]
    lowest = table[table["group"] == frames.GROUPS[1]].iloc[-1]
    return (
        f"Models that predict eps score {of(eps, 'score')} among themselves, mean prediction {of(mean, 'score')}, and one with the other "
        f"{of(between, 'score')}, which {relation(between, eps, 'score')} that of eps models alone; the least alike of all ways are "
        f"{lowest['name']} at {of(lowest, 'score')}."
    )


def produce(source: Source) -> Drawn:
    rows = source.rows("parametrisation")
    table = frames.scores(rows)
    names = {frames.GROUPS[0]: "within a way (objective after the slash)", frames.GROUPS[1]: "between ways"}
    drawn = table.assign(group=table["group"].replace(names))
    limits = (min(0.0, table["score_low"].min()) - 0.03, 1.02)
    panels = [Panel("score", "consistency score, mse (no unit)", lines={"other noise (null)": 0.0}, limits=limits)]
    if table["frechet"].notna().any():
        panels.append(Panel("frechet", "Frechet distance\n(classifier features,\nno unit; lower is better)"))
    return Drawn({"": (forest(drawn, panels, width=8.4), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
