"""The final table: where every contestant of a race ended, in loss and in Frechet distance, and what speed-ups remain of its controls."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, said

from consistency_lab.plots.studies import Panel, forest
from consistency_lab.studies.race.table import finals_table, race_table

CLAIMED = ("paper", "recipe")


def _ratio(row: dict[str, object]) -> str:
    if row["bound"] == "unknown":
        return "unknown"
    return f"{row['bound']} {said(row['speedup'], row['low'], row['high'])}".strip()


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for role in CLAIMED:
        own = table[(table["role"] == role) & table["fastest"]]
        for name, part in own.groupby("contestant", sort=False):
            against = [f"{row['against']}: {_ratio(row)}" for row in part.to_dict("records")]
            parts.append(f"{name} (against {listed(against)})")
    return (
        "How many times sooner the target was reached: " + ("; ".join(parts) if parts else "no recipe was raced") + "."
    )


def produce(source: Source) -> Drawn:
    race = source.race("standard")
    ends, speed = finals_table(race), race_table(race)
    roles = dict(zip(speed["contestant"], speed["role"], strict=True))
    ends = ends.rename(columns={"contestant": "name"})
    ends.insert(0, "group", [roles.get(name, "needs no training") for name in ends["name"]])
    order = {group: i for i, group in enumerate(dict.fromkeys(ends["group"]))}
    ends = ends.sort_values("group", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    panels = [
        Panel("loss", "held-out loss at the end\n(uniform t, eps units; log scale)", log=True),
        Panel("frechet", "Frechet distance at the end\n(classifier features, no unit; log scale)", log=True),
    ]
    return Drawn({"": (forest(ends, panels, width=9.6), ends)}, sentence(speed))


if __name__ == "__main__":
    main(produce, __file__)
