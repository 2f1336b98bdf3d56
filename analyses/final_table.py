"""The final table: where every contestant of a race ended, in held-out loss and in Frechet distance, beside what needs no training."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of, relation

from consistency_lab.intervals import interval_names
from consistency_lab.paper.plots.studies import Panel, forest
from consistency_lab.paper.race.table import fastest, finals_table, race_table
from consistency_lab.plots.look import current

CLAIMED = ("paper", "recipe")
LINES, LINES_OF_COLUMN = 28, 22  # of a page
MEASURES = {"loss": "held-out loss", "frechet": "Frechet distance"}


def sentence(ends: pd.DataFrame, best: dict[str, str], unqualified: list[str]) -> str:
    """The fastest of the paper's and of our recipes against uniform times, at a constant rate and with the same annealing."""
    at = ends.set_index("name")
    controls = [best[role] for role in ("control", "annealed") if role in best]
    parts = []
    for measure, words in MEASURES.items():
        for name in (best[role] for role in CLAIMED if role in best):
            against = [f"{relation(at.loc[name], at.loc[c], measure)} {c} {of(at.loc[c], measure)}" for c in controls]
            parts.append(f"{words} of {name} {of(at.loc[name], measure)}, which {listed(against)}")
    caution = (
        f"; the {listed(unqualified)} cannot tell a trained model from what needs no training" if unqualified else ""
    )
    return f"At the end (over seeds): {'; '.join(parts) if parts else 'no recipe was raced'}{caution}."


def pages(ends: pd.DataFrame, most: int = LINES) -> list[pd.DataFrame]:
    """The table in pages of at most ``most`` lines, headings among them; a group that does not fit on what is left begins the next."""
    found: list[list[pd.DataFrame]] = [[]]
    left = most
    for _, group in ends.groupby("group", sort=False):
        for first in range(0, len(group), most - 1):
            part = group.iloc[first : first + most - 1]
            if len(part) + 1 > left:
                found.append([])
                left = most
            found[-1].append(part)
            left -= len(part) + 1
    return [pd.concat(page, ignore_index=True) for page in found if page]


def produce(source: Source) -> Drawn:
    race = source.race("standard")
    ends, speed = finals_table(race), race_table(race)
    roles = dict(zip(speed["contestant"], speed["role"], strict=True))
    ends = ends.rename(columns={"contestant": "name"})
    ends.insert(0, "group", [roles.get(name, "needs no training") for name in ends["name"]])
    order = {group: i for i, group in enumerate(dict.fromkeys(ends["group"]))}
    ends = ends.sort_values("group", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    best = float(ends["loss"].min())
    # Where contestants end; what is far from there is written, not drawn.
    near = (0.95 * best, 1.5 * best)
    known = ends[interval_names("frechet")].to_numpy(dtype=float)
    known = known[known > 0]
    same = (known.min() / 1.4, known.max() * 1.4)  # on every page
    panels = [
        Panel("loss", "held-out loss at the end\n(uniform t, eps units)", limits=near),
        Panel(
            "frechet", "Frechet distance at the end\n(classifier features, no unit; log scale)", log=True, limits=same
        ),
    ]
    named = zip(MEASURES.values(), race["qualified"].values, strict=True)
    unqualified = [words for words, good in named if not good]
    target = float(race["target"].values[-1])
    entries = speed.groupby("role", sort=False)["contestant"].unique()
    chosen = {str(role): fastest(race, list(names), target) for role, names in entries.items()}
    most = LINES_OF_COLUMN if current().narrow else LINES
    figures = {
        ("" if i == 1 else f"page-{i}"): (forest(page, panels, list(order)), page)
        for i, page in enumerate(pages(ends, most), start=1)
    }
    return Drawn(figures, sentence(ends, chosen, unqualified))


if __name__ == "__main__":
    main(produce, __file__)
