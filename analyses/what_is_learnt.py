"""Does the recipe change what is learnt, or only when? Consistency within and between uniform models and models of the recipe."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import METRICS, Drawn, Source, by_metric, listed, main, of, relation

from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest

PLAIN, ANNEALED, TAUGHT = "uniform", "uniform, annealed", "recipe"
LEVEL = 0.05  # of the label permutation


def sentence(tables: dict[str, pd.DataFrame]) -> str:
    """Between the kinds against within each, for the recipe and for its annealing alone, by every measure that the rows have."""
    by, parts = {metric: table.set_index("name") for metric, table in tables.items()}, []
    for first, second in ((PLAIN, TAUGHT), (PLAIN, ANNEALED)):
        if all({first, second, f"{first} | {second}"} <= set(table.index) for table in by.values()):
            told = {metric: _apart(table, first, second) for metric, table in by.items()}
            texts = "; ".join(f"by {metric} {text}" for metric, (_, text) in told.items())
            answer = _answer([sign for signs, _ in told.values() for sign in signs])
            parts.append(f"models of '{second}' with those of '{first}' score {texts}: {answer}")
    if not parts:
        return "Whether the recipe changes what is learnt is open: the rows are not all finished."
    return f"With other noise = 0, {'; and '.join(parts)}."


def _apart(table: pd.DataFrame, first: str, second: str) -> tuple[list[bool], str]:
    """Whether the kinds are less alike than each is to itself: by score, by median distance and by label permutation; and in words."""
    pair, own = table.loc[f"{first} | {second}"], [table.loc[name] for name in (first, second)]
    signs = [all(relation(pair, each, "score") == "lies below" for each in own)]
    text = f"{of(pair, 'score')} against {listed(of(each, 'score') for each in own)} within"
    medians = [float(each["median"]) for each in (pair, *own)]
    if np.isfinite(medians).all():
        signs.append(medians[0] > max(medians[1:]))
        text += f", median distance {medians[0]:.3g} against {listed(f'{each:.3g}' for each in medians[1:])}"
    if np.isfinite(pair["p"]):
        signs.append(pair["p"] < LEVEL)
        text += f", label permutation p = {pair['p']:.2g}"
    return signs, text


def _answer(signs: list[bool]) -> str:
    if all(signs):
        return "what is learnt changes, by every one of them"
    return (
        "they contradict each other, so that nothing is claimed" if any(signs) else "no change is seen by any of them"
    )


def produce(source: Source) -> Drawn:
    command = f"race --preset {source.preset} --consistency"
    rows = source.rows("race-consistency", command)
    try:
        tables = by_metric(rows)
    except frames.MissingRows as missing:
        raise source.missing("race", str(missing), command) from None
    table = tables[METRICS[0]]
    names = {frames.GROUPS[0]: "within a kind", frames.GROUPS[1]: "between kinds"}
    drawn = table.assign(group=table["group"].replace(names))
    low = float(table["score_low"].min())
    panels = [
        Panel(
            "score",
            "consistency score, mse\n(0 = other noise, 1 = same image; no unit)",
            limits=(low - 0.1 * (1 - low), 1.0),
        )
    ]
    if table["frechet"].notna().any():
        panels.append(Panel("frechet", "Frechet distance\n(classifier features,\nno unit; lower is better)"))
    return Drawn({"": (forest(drawn, panels), table)}, sentence(tables))


if __name__ == "__main__":
    main(produce, __file__)
