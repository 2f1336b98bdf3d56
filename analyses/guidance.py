"""Class-conditional models: do they agree more or less the more they are guided? Beside unconditional ones, with quality."""

from __future__ import annotations

import pandas as pd
from _common import METRICS, Drawn, Source, by_metric, listed, main, of

from consistency_lab.paper.plots.studies import Panel, forest


def sentence(tables: dict[str, pd.DataFrame]) -> str:
    parts = []
    for metric, table in tables.items():
        texts = (f"{row['name']} {of(row, 'score')}" for _, row in table.sort_values("name").iterrows())
        parts.append(f"by {metric} {listed(texts)}")
    return f"Models among themselves, other noise of the same label being 0: {'; '.join(parts)}."


def produce(source: Source) -> Drawn:
    tables = by_metric(source.rows("guidance"))
    table = tables[METRICS[0]]
    drawn = table.assign(group=table["name"].str.split(",").str[0]).sort_values(["group", "name"], ignore_index=True)
    low = float(table["score_low"].min())
    panels = [Panel("score", "consistency score, mse (no unit)", limits=(low - 0.1 * (1 - low), 1.0))]
    if table["frechet"].notna().any():
        panels.append(Panel("frechet", "Frechet distance\n(classifier features, no unit;\nlower is better)"))
    return Drawn({"": (forest(drawn, panels), drawn)}, sentence(tables))


if __name__ == "__main__":
    main(produce, __file__)
