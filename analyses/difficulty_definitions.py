"""What "hard" means: where each definition has its peak, how much lies at low noise, and which definitions order the times alike."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, main, nested

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.definitions import agreement_matrix
from consistency_lab.plots.studies import Panel, forest


def sentence(table: pd.DataFrame, ranks: pd.DataFrame) -> str:
    known, sure = table.dropna(subset=["peak"]), ranks.dropna(subset=["low"])
    first, last = known.loc[known["peak"].idxmin()], known.loc[known["peak"].idxmax()]
    alike, opposed = int((sure["low"] > 0).sum()), int((sure["high"] < 0).sum())
    return (
        f"The hardest time is from t = {first['peak']:.2g} ({first['name']}, {first['group']}) to t = {last['peak']:.2g} ({last['name']}, "
        f"{last['group']}) by definition; of {len(sure)} pairs of definitions over {table['group'].nunique()} families, {alike} order the "
        f"times alike, {opposed} in opposite ways and {len(sure) - alike - opposed} cannot be told (95 % intervals over images)."
    )


def produce(source: Source) -> Drawn:
    parts, every, figures = [], [], {}
    for row in frames.probes(source.rows("why"), "difficulty").to_dict("records"):
        own, ranks = nested(row["definitions"]), nested(row["rank_correlations"])
        columns = {"peak_t": "peak", "peak_from": "peak_low", "peak_to": "peak_high"}
        columns |= {"share_below": "share", "definition": "name"}
        parts.append(own.rename(columns=columns).assign(group=row["name"]))
        every.append(ranks.astype(dict.fromkeys(("rho", "low", "high"), float)).assign(group=row["name"]))
        figures[f"agreement-{row['name']}"] = (agreement_matrix(every[-1], list(own["definition"])), every[-1])
    table = pd.concat(parts, ignore_index=True)
    panels = [
        Panel(
            "peak",
            "hardest time t (1 = noise, 0 = data);\nline: times that it cannot be told from",
            "peak",
            limits=(1.02, -0.02),
        ),
        Panel(
            "share", "share of the curve's area\nat t < 0.5", "at low noise", {"flat curve": 0.5}, limits=(-0.04, 1.04)
        ),
    ]
    figures = {"": (forest(table, panels, width=8.6), table), **figures}
    return Drawn(figures, sentence(table, pd.concat(every, ignore_index=True)))


if __name__ == "__main__":
    main(produce, __file__)
