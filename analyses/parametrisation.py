"""Parametrisation and objective (the paper's figure 9): models that predict eps, x0, v ... within each way and between ways."""

from __future__ import annotations

import pandas as pd
from _common import METRICS, Drawn, Source, by_metric, main, of, relation

from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest

NOISE = "eps"
MEANS = {"x0": "x0 prediction", "eps/x0": "mean prediction with an outer skip"}


def sentence(tables: dict[str, pd.DataFrame]) -> str:
    """By every metric: a few exploded samples can decide the one that is drawn."""
    parts = [f"by {metric} {_told(table)}" for metric, table in tables.items() if NOISE in set(table["name"])]
    if not parts:
        return "The comparison of eps with mean prediction is open: the row eps is not finished."
    return "Among themselves: " + "; ".join(parts) + "."


def _told(table: pd.DataFrame) -> str:
    by = table.set_index("name")
    parts = [f"eps prediction {_own(by.loc[NOISE])}"]
    for name, words in MEANS.items():
        pair = f"{NOISE} | {name}"
        if name in by.index and pair in by.index:
            verdict = relation(by.loc[pair], by.loc[NOISE], "score")
            parts.append(
                f"{words} {_own(by.loc[name])}, with eps {of(by.loc[pair], 'score')}, which {verdict} that of eps alone"
            )
    return ", ".join(parts)


def _own(row: pd.Series) -> str:
    return of(row, "score") + (f" (Frechet distance {row['frechet']:.3g})" if pd.notna(row["frechet"]) else "")


def produce(source: Source) -> Drawn:
    rows = source.rows("parametrisation")
    tables = by_metric(rows)
    table = tables[METRICS[0]]
    names = {frames.GROUPS[0]: "within a way (objective after the slash)", frames.GROUPS[1]: "between ways"}
    drawn = table.assign(group=table["group"].replace(names))
    limits = (min(0.0, table["score_low"].min()) - 0.03, 1.02)
    panels = [Panel("score", "consistency score, mse (no unit)", lines={"other noise (null)": 0.0}, limits=limits)]
    if table["frechet"].notna().any():
        panels.append(
            Panel("frechet", "Frechet distance\n(classifier features, no unit;\nlog scale, lower is better)", log=True)
        )
    return Drawn({"": (forest(drawn, panels), table)}, sentence(tables))


if __name__ == "__main__":
    main(produce, __file__)
