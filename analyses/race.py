"""The race: how many times sooner than each of its controls every contestant reached the target, and the curves of the fastest."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, said

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots.race import curves, curves_frame, shown, speedups
from consistency_lab.paper.race.table import fastest, race_table

CLAIMED = ("paper", "recipe")


def _ratio(row: dict[str, object]) -> str:
    if row["bound"] == "unknown":
        return "unknown"
    told = (
        row["bound"] != "at most"
        and pd.notna(row["speedup_low"])
        and (float(str(row["speedup_low"])) > 1 or float(str(row["speedup_high"])) < 1)
    )
    return f"{row['bound']} {said(*interval_of(row, 'speedup'))}{'' if told else ', not told from 1'}".strip()  # type: ignore[arg-type]


def sentence(table: pd.DataFrame, best: dict[str, tuple[str, int]]) -> str:
    """The fastest of the paper's and of our recipes against each kind of control; the choice among several is said."""
    parts = []
    for name, among in (best[role] for role in CLAIMED if role in best):
        own = table[table["contestant"] == name]
        against = [f"{row['against']}: {_ratio(row)}" for row in own.to_dict("records")]
        chosen = f", the fastest of {among}, which flatters it" if among > 1 else ""
        parts.append(f"{name}{chosen} (against {listed(against)})")
    return (
        "How many times sooner the target was reached: " + ("; ".join(parts) if parts else "no recipe was raced") + "."
    )


def everybody(table: pd.DataFrame) -> pd.DataFrame:
    """Every contestant, a column for every kind of control with the control's name, in words."""
    lines: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        control = "" if row["control"] == row["against"] else f": {row['control']}"
        known = row["bound"] == "" and pd.notna(row["speedup_low"])
        ends = f" [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]" if known else ""
        value = "unknown" if row["bound"] == "unknown" else f"{row['bound']} {row['speedup']:.2f}{ends}".strip()
        lines.setdefault(row["contestant"], {})[f"times sooner than {row['against']}{control}"] = value
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("contestant").reset_index()


def produce(source: Source) -> Drawn:
    figures, sentences, tables = {}, [], []
    for name, race in source.races().items():
        table, target = race_table(race), float(race["target"].values[-1])
        entries = table.groupby("role", sort=False)["contestant"].unique()
        best = {str(role): (fastest(race, list(names), target), len(names)) for role, names in entries.items()}
        figures[name] = (speedups(race), table)
        figures[f"{name}-loss" if name else "loss"] = (curves(race), curves_frame(race, shown(race)))
        sentences.append(f"{name.capitalize()}: {sentence(table, best)}" if name else sentence(table, best))
        tables.append(everybody(table))
    columns = list(dict.fromkeys(column for table in tables for column in table))
    return Drawn(figures, " ".join(sentences), pd.concat(tables, ignore_index=True).reindex(columns=columns).fillna(""))


if __name__ == "__main__":
    main(produce, __file__)
