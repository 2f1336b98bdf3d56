"""Which stream of random numbers makes models differ: initialisation, order of the data, or noise of training, each varied alone."""

from __future__ import annotations

import pandas as pd
from _common import METRICS, Drawn, Source, by_metric, listed, main, of, relation

from consistency_lab.paper.plots.studies import Panel, forest

ALL = "all three"


def sentence(tables: dict[str, pd.DataFrame]) -> str:
    """By every metric: a few exploded samples can decide the one that is drawn."""
    parts = [f"by {metric} {_told(table)}" for metric, table in tables.items() if _complete(table)]
    if not parts:
        return "Which stream matters is open: the rows are not all finished."
    return f"Of the streams varied alone, {'; '.join(parts)}."


def _complete(table: pd.DataFrame) -> bool:
    return ALL in set(table["name"]) and len(table) > 1


def _told(table: pd.DataFrame) -> str:
    single, every = table[table["name"] != ALL], table[table["name"] == ALL].iloc[0]
    least = single.loc[single["score"].idxmin()]
    rest = single[single["name"] != least["name"]]
    next_one = rest.loc[rest["score"].idxmin()] if len(rest) else None
    told = "" if next_one is None or relation(least, next_one, "score") == "lies below" else ", not told from the next"
    others = listed(f"{row['name']} {of(row, 'score', 4)}" for _, row in rest.iterrows()) if len(rest) else "none"
    return (
        f"{least['name']} makes models differ most{told}, with a score of {of(least, 'score', 4)} (the others: {others}), "
        f"which {relation(least, every, 'score')} that of all three varied together, {of(every, 'score', 4)}"
    )


def produce(source: Source) -> Drawn:
    tables = by_metric(source.rows("streams"))
    table = tables[METRICS[0]].assign(group="what varies between models")
    low = table["score_low"].min()
    panel = Panel(
        "score",
        "consistency score, mse\n(0 = other noise, 1 = same image; no unit)",
        limits=(low - 0.1 * (1 - low), 1.0),
    )
    panels = [panel]
    if table["frechet"].notna().any():
        panels.append(Panel("frechet", "Frechet distance\n(classifier features, no unit)"))
    return Drawn({"": (forest(table, panels), table)}, sentence(tables))


if __name__ == "__main__":
    main(produce, __file__)
