"""How much of what models share closed-form denoisers explain: Gaussian, local, optimal; and how alike is what is left of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest
from consistency_lab.plots.reading import REFERENCE_NAMES


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for group, part in table.groupby("group", sort=False):
        known = part.dropna(subset=["share"])
        best = known.loc[known["share"].idxmax()]
        itself = part["itself"].iloc[0]
        parts.append(
            f"{group} ({itself:.3g} among themselves) is nearest to the {best['name']}, "
            f"{of(best, 'share')}, and scores {of(best, 'residual')} on what is left of it"
        )
    return "Of the closed forms, " + listed(parts) + "."


def produce(source: Source) -> Drawn:
    own, table = frames.families(source.rows("origins")), []
    for row in own.to_dict("records"):
        for reference in frames.references_of(own):
            name = REFERENCE_NAMES.get(reference, f"{reference.split('(')[0]} denoiser")
            share = as_columns("share", interval_of(row, f"to_{reference}", np.nan))
            left = as_columns("residual", interval_of(row, f"residual_after_{reference}", np.nan))
            table.append(
                {
                    "group": row["family"],
                    "name": name,
                    "reference": reference,
                    **share,
                    **left,
                    "itself": row["mse_score"],
                }
            )
    frame = pd.DataFrame(table)
    low = min(0.0, float(frame[["share_low", "residual"]].min().min())) - 0.04
    panels = [
        Panel(
            "share", "score of models with it\n(mse, no unit)", "explained", {"other noise": 0.0}, limits=(low, 1.02)
        ),
        Panel(
            "residual", "score of what is left\n(mse, no unit)", "left over", {"other noise": 0.0}, limits=(low, 1.02)
        ),
    ]
    return Drawn({"": (forest(frame, panels), frame)}, sentence(frame))


if __name__ == "__main__":
    main(produce, __file__)
