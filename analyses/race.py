"""The race: how many times sooner than each of its controls every contestant reached the target, and the curves of the fastest."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, said

from consistency_lab.plots.race import curves, curves_frame, shown, speedups
from consistency_lab.studies.race.table import race_table

CLAIMED = ("paper", "recipe")


def _ratio(row: dict[str, object]) -> str:
    if row["bound"] == "unknown":
        return "unknown"
    told = (
        row["bound"] != "at most"
        and pd.notna(row["low"])
        and (float(str(row["low"])) > 1 or float(str(row["high"])) < 1)
    )
    return (
        f"{row['bound']} {said(row['speedup'], row['low'], row['high'])}{'' if told else ', not told from 1'}".strip()
    )  # type: ignore[arg-type]


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
    table = race_table(race)
    names = shown(race)
    return Drawn({"": (speedups(race), table), "loss": (curves(race), curves_frame(race, names))}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
