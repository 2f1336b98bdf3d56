"""Consistency against the size of the training set, on disjoint halves: from memorising to generalising."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, of, relation, sweeps

from consistency_lab.intervals import as_columns, as_value, interval_of
from consistency_lab.paper.plots.studies import curves

PANELS = {
    "between": "score across disjoint\nsets, mse (no unit)",
    "within": "score of models of\none set, mse (no unit)",
    "copies": "share of samples\nthat copy (no unit)",
}


def sentence(every: dict[str, pd.DataFrame]) -> str:
    return " ".join(_told(network, table) for network, table in every.items())


def _told(network: str, table: pd.DataFrame) -> str:
    small, large = table.iloc[0], table.iloc[-1]
    gaps = []
    for row in (small, large):
        ends = pd.Series(as_columns("x", interval_of(row, "within")))
        other = pd.Series(as_columns("x", interval_of(row, "between")))
        gaps.append(relation(other, ends, "x"))
    return (
        f"On {small['size']:.0f} images, {network}s of disjoint sets score {of(small, 'between')}, which {gaps[0]} those of one set "
        f"({of(small, 'within')}), and {of(small, 'copies')} of samples are copies; on {large['size']:.0f} images {of(large, 'between')}, "
        "which "
        f"{gaps[1]} those of one set ({of(large, 'within')}), with {of(large, 'copies')} copies."
    )


def produce(source: Source) -> Drawn:
    every, parts = sweeps(source.rows("sizes")), []
    for panel in PANELS:
        for network, wide in every.items():
            values = as_value(interval_of(wide, panel))
            parts.append(pd.DataFrame({"panel": panel, "name": network, "size": wide["size"], **values}))
    table = pd.concat(parts, ignore_index=True)
    label = "images in the training set (log scale)"
    figure = curves(table, "size", label, PANELS, logx=True, ylim=(-0.03, 1.03), height=2.2)
    return Drawn({"": (figure, table)}, sentence(every))


if __name__ == "__main__":
    main(produce, __file__)
