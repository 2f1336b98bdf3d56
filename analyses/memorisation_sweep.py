"""Consistency against the size of the training set, on disjoint halves: from memorising to generalising."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, of, relation, sweeps

from consistency_lab.intervals import as_columns, as_value, interval_of
from consistency_lab.paper.plots.studies import curves

NAMES = {"within": "one set", "between": "disjoint sets"}


def sentence(table: pd.DataFrame) -> str:
    small, large = table.iloc[0], table.iloc[-1]
    gaps = []
    for row in (small, large):
        ends = pd.Series(as_columns("x", interval_of(row, "within")))
        other = pd.Series(as_columns("x", interval_of(row, "between")))
        gaps.append(relation(other, ends, "x"))
    return (
        f"On {small['size']:.0f} images, models of disjoint sets score {of(small, 'between')}, which {gaps[0]} models of one set "
        f"({of(small, 'within')}), and {of(small, 'copies')} of samples are copies; on {large['size']:.0f} images {of(large, 'between')}, "
        "which "
        f"{gaps[1]} models of one set ({of(large, 'within')}), with {of(large, 'copies')} copies."
    )


def produce(source: Source) -> Drawn:
    wide, *_ = sweeps(source.rows("sizes")).values()  # of the first architecture; `theory` shows them all
    parts = []
    for panel, keys in (("score", list(NAMES)), ("copies", ["copies"])):
        for key in keys:
            columns = as_value(interval_of(wide, key))
            parts.append(pd.DataFrame({"panel": panel, "name": NAMES.get(key, key), "size": wide["size"], **columns}))
    table = pd.concat(parts, ignore_index=True)
    labels = {"score": "consistency score, mse\n(no unit)", "copies": "share of samples\nthat copy (no unit)"}
    figure = curves(
        table, "size", "images in the training set (log scale)", labels, logx=True, ylim=(-0.03, 1.03), height=2.2
    )
    return Drawn({"": (figure, table)}, sentence(wide))


if __name__ == "__main__":
    main(produce, __file__)
