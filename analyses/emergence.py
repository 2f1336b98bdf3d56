"""When in training models begin to agree, and what they agree on first: the Gaussian denoiser, or the optimal one of the training set."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.reading import REFERENCE_NAMES
from consistency_lab.plots.studies import curves

HALF = 0.5


def sentence(own: pd.DataFrame) -> str:
    parts = []
    for name, line in own.groupby("family", sort=False):
        line = line.sort_values("step")
        last, reached = line.iloc[-1], line[line["mse_score"] >= HALF * line["mse_score"].iloc[-1]]
        text = of(last.rename({"mse_score": "mse"}), "mse")
        parts.append(
            f"{name} reaches half of its last score by step {reached['step'].iloc[0]:.0f} of {last['step']:.0f}, where it is {text}"
        )
    return listed(parts) + "."


def produce(source: Source) -> Drawn:
    own = frames.families(source.rows("emergence"), "emergence")
    parts = [_part(own, "score", ("mse_score", "mse_low", "mse_high"))]
    labels = {"score": "score of models with\neach other (mse, no unit)"}
    for reference in frames.references_of(own):
        if reference == "mean":
            continue  # nothing is alike to it: it has no images of its own
        name = REFERENCE_NAMES.get(reference, reference)
        parts.append(_part(own, reference, tuple(f"to_{reference}{end}" for end in frames.ENDS)))
        labels[reference] = f"score with the\n{name} (mse, no unit)"
    table = pd.concat(parts, ignore_index=True)
    low = min(-0.05, float(table["value"].min()))
    figure = curves(
        table, "step", "training step (log scale)", labels, logx=True, lines={"null": 0.0}, ylim=(low, 1.03), height=2.1
    )
    return Drawn({"": (figure, table)}, sentence(own))


def _part(own: pd.DataFrame, panel: str, columns: tuple[str, ...]) -> pd.DataFrame:
    values = {name: own[column].astype(float) for name, column in zip(("value", "low", "high"), columns, strict=True)}
    return pd.DataFrame({"panel": panel, "name": own["family"], "step": own["step"], **values})


if __name__ == "__main__":
    main(produce, __file__)
