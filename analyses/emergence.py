"""When in training models begin to agree, and what they agree on first: the Gaussian denoiser, or the optimal one of the training set."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, of, said

from consistency_lab.intervals import as_value, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import curves
from consistency_lab.plots.reading import REFERENCE_NAMES

HALF = 0.5


def sentence(own: pd.DataFrame) -> str:
    """Agreement among models is there before they have learnt anything, so that what they agree on is told beside it."""
    parts, known = [], [name for name in frames.references_of(own) if name != "mean"]
    for name, line in own.sort_values("step").groupby("family", sort=False):
        first, last = line.iloc[0], line.iloc[-1]
        early, late = (said(*interval_of(row, "mse_score")) for row in (first, last))
        text = f"{name} scores {early} at step {first['step']:.0f} and {late} at step {last['step']:.0f}"
        for reference in known[:1]:
            values = line[f"to_{reference}"]
            reached = line[values >= HALF * values.iloc[-1]].iloc[0]
            text += (
                f", but with the {REFERENCE_NAMES.get(reference, reference)} {of(first, f'to_{reference}', 2)} and "
                f"{of(last, f'to_{reference}', 2)}, half of it by step {reached['step']:.0f}"
            )
        parts.append(text)
    return "Among themselves, " + "; ".join(parts) + "."


def produce(source: Source) -> Drawn:
    own = frames.families(source.rows("emergence"), "emergence")
    parts = [_part(own, "score", "mse_score")]
    labels = {"score": "models with each other:\nscore, mse (no unit)"}
    for reference in frames.references_of(own):
        if reference == "mean":
            continue  # nothing is alike to it: it has no images of its own
        name = REFERENCE_NAMES.get(reference, reference)
        parts.append(_part(own, reference, f"to_{reference}"))
        labels[reference] = f"with the {name}:\nscore, mse (no unit)"
    table = pd.concat(parts, ignore_index=True)
    low = min(-0.05, float(table["value"].min()))
    figure = curves(
        table, "step", "training step (log scale)", labels, logx=True, lines={"null": 0.0}, ylim=(low, 1.03), height=2.4
    )
    return Drawn({"": (figure, table)}, sentence(own))


def _part(own: pd.DataFrame, panel: str, column: str) -> pd.DataFrame:
    values = as_value(part.astype(float) for part in interval_of(own, column))
    return pd.DataFrame({"panel": panel, "name": own["family"], "step": own["step"], **values})


if __name__ == "__main__":
    main(produce, __file__)
