"""The race at many targets: how many times sooner the recipe, the paper and the best published density reach each of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from _common import Drawn, Source, listed, main
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names
from consistency_lab.paper.plots.studies import curves
from consistency_lab.paper.race.curve import speedup_curve
from consistency_lab.paper.race.table import AGAINST, MATCHED, fastest

ROLES = ("recipe", "density", "paper")
COLUMNS = (
    *("fraction", "target_loss", "qualified", "contestant", "against", "control"),
    *("crossing", "censored", *interval_names("speedup"), "bound"),
)
CONTROLS = {
    AGAINST["control"]: "uniform,\nconstant rate",
    AGAINST["annealed"]: "the fastest uniform\nwith annealing",
    MATCHED: "uniform, the same\npreconditioning",
}


def followed(race: xr.Dataset) -> dict[str, str]:
    """Whom the curves are of, by role: the first recipe and the fastest of others' densities and of the paper's, each at its fastest
    length by the last target."""
    target = float(race["target"].values[-1])
    names, roles, entries = ([str(x) for x in race[key].values] for key in ("contestant", "role", "entry"))
    found = {}
    for role in ROLES:
        own = [i for i, each in enumerate(roles) if each == role]
        # Of several recipes the first leads; to take the fastest would be to choose by what is to be shown.
        rivals = [i for i in own if role != "recipe" or entries[i] == entries[own[0]]]
        if rivals:
            found[role] = fastest(race, [names[i] for i in rivals], target)
    return found


def sentence(table: pd.DataFrame, who: dict[str, str]) -> str:
    """The leading recipe against both controls, target by target."""
    if "recipe" not in who:
        return "No recipe was raced, so that there is no speed-up over targets."
    own = table[table["contestant"] == who["recipe"]]
    parts = []
    for against, line in own.groupby("against", sort=False):
        values = listed(f"{_times(row)} at {row['fraction']:g}" for _, row in line.iterrows())
        parts.append(f"{values} against {against}")
    loose = sorted(set(own[~own["qualified"]]["fraction"]))
    caution = (
        f"; at {listed(f'{f:g}' for f in loose)} a closed-form denoiser has that loss without training" if loose else ""
    )
    return (
        f"{who['recipe']} reaches the loss that a uniform run had at a share of its steps this many times sooner: "
        f"{'; '.join(parts)}{caution}."
    )


def _times(row: pd.Series) -> str:
    if row["bound"]:
        return "unknown" if row["bound"] == "unknown" else f"{row['bound']} {row['speedup']:.2f}"
    return f"{row['speedup']:.2f} [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"


def produce(source: Source) -> Drawn:
    figures, sentences = {}, []
    for name, race in source.races().items():
        figure, table, text = _of(race)
        figures[name] = (figure, table)
        sentences.append(f"{name.capitalize()}: {text}" if name else text)
    return Drawn(figures, " ".join(sentences))


def _of(race: xr.Dataset) -> tuple[Figure, pd.DataFrame, str]:
    who = followed(race)
    table = speedup_curve(race, list(who.values()))
    table = table[table["against"].isin(CONTROLS)][list(COLUMNS)].reset_index(drop=True)
    # A bound is no estimate, and the race to a target that needs no training is none.
    shown = (table["bound"] == "") & table["qualified"]
    columns = dict(zip(("value", "low", "high"), interval_names("speedup"), strict=True))
    drawn = pd.DataFrame({new: table[old].where(shown) for new, old in columns.items()})
    drawn = drawn.assign(panel=table["against"], name=table["contestant"], fraction=table["fraction"]).dropna(
        subset="value"
    )
    labels = {
        against: f"times sooner than\n{text}" for against, text in CONTROLS.items() if against in set(drawn["panel"])
    }
    ends = drawn[["value", "low", "high"]].to_numpy(dtype=float)
    figure = curves(
        drawn, "fraction", "target: the loss that a uniform run had reached at this share of its steps", labels, lines={"as soon": 1.0},
        ylim=(min(0.9, 0.95 * float(np.nanmin(ends))), 1.05 * float(np.nanmax(ends))), height=2.4,
    )  # fmt: skip
    return figure, table, sentence(table, who)


if __name__ == "__main__":
    main(produce, __file__)
