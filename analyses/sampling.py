"""What models agree on under stochastic sampling: where they share the first noise, the noise on the way, both, or one alone."""

from __future__ import annotations

import pandas as pd
from _common import METRICS, Drawn, Source, listed, main, said

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest


def table_of(rows: list[frames.Row], metric: str = METRICS[0]) -> pd.DataFrame:
    """A row a family and kind: ``group`` (the family), ``name`` (what is shared), the score with its ends, and ``median`` distance."""
    table = []
    for row in frames.measured_alike(rows, "sampling"):
        values, spec = row["values"], row["spec"]
        score = as_columns("score", interval_of(values, f"{metric}_score"))
        name = f"{spec['shared']} ({spec['method']})"
        table.append({"group": spec["family"], "name": name, **score, "median": values[f"{metric}_median_distance"]})
    return pd.DataFrame(table)


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for family, own in table.groupby("group", sort=False):
        texts = (f"{row['name']} {said(*interval_of(row, 'score'))}" for _, row in own.iterrows())
        parts.append(f"{family} score {listed(texts)}")
    return f"By what models share of the noise ({METRICS[0]}): {'; '.join(parts)}."


def produce(source: Source) -> Drawn:
    table = table_of(source.rows("sampling"))
    limits = (min(-0.05, float(table["score_low"].min()) - 0.03), 1.02)
    panel = Panel("score", "consistency score, mse (no unit)", lines={"nothing shared": 0.0}, limits=limits)
    return Drawn({"": (forest(table, [panel]), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
