"""Does the recipe change what is learnt, or only when? Consistency within and between uniform models and models of the recipe."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, of, relation

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import Panel, forest

PLAIN, TAUGHT = "uniform", "recipe"


def sentence(table: pd.DataFrame) -> str:
    """Between the kinds against within each: below both, the recipe changes what is learnt."""
    by, pair = table.set_index("name"), f"{PLAIN} | {TAUGHT}"
    if not {PLAIN, TAUGHT, pair} <= set(by.index):
        return "Whether the recipe changes what is learnt is open: the rows are not all finished."
    verdicts = [relation(by.loc[pair], by.loc[name], "score") for name in (PLAIN, TAUGHT)]
    answer = (
        "it changes what is learnt"
        if verdicts == ["lies below"] * 2
        else "no change of what is learnt is seen"
        if "lies below" not in verdicts
        else "it is undecided whether what is learnt changes"
    )
    return (
        f"Models of the recipe with uniform ones score {of(by.loc[pair], 'score')} (mse; other noise = 0), which {verdicts[0]} uniform "
        f"ones among themselves, {of(by.loc[PLAIN], 'score')}, and {verdicts[1]} the recipe's among themselves, "
        f"{of(by.loc[TAUGHT], 'score')}: {answer}."
    )


def produce(source: Source) -> Drawn:
    command = f"race --preset {source.preset} --consistency"
    rows = source.rows("race", command)
    try:
        table = frames.scores(rows)
    except frames.MissingRows as missing:
        raise source.missing("race", str(missing), command) from None
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
    return Drawn({"": (forest(drawn, panels), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
