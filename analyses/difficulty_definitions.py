"""What "hard" means: where each definition has its peak, how much lies at low noise, and which definitions order the times alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import Drawn, Source, main, nested

from consistency_lab.intervals import interval_names
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest
from consistency_lab.plots.definitions import agreement_matrix
from consistency_lab.probes.profiles import OVER_OPTIMAL, VOID


def sentence(table: pd.DataFrame, ranks: pd.DataFrame) -> str:
    """Peaks with their ranges and in which units; definitions that are void have none."""
    known, sure = table.dropna(subset=["peak"]), ranks.dropna(subset=["rho_low"])
    first, last = known.loc[known["peak"].idxmin()], known.loc[known["peak"].idxmax()]
    alike, opposed = int((sure["rho_low"] > 0).sum()), int((sure["rho_high"] < 0).sum())
    void = sorted({name for name in table["name"] if name == VOID})
    return (
        f"The hardest time is from {_peak(first)} to {_peak(last)} by definition; of {len(sure)} pairs of definitions over "
        f"{table['group'].nunique()} families, {alike} order the times alike, {opposed} in opposite ways and "
        f"{len(sure) - alike - opposed} cannot be told (95 % intervals over images)"
        + (f"; left out: {void[0]}." if void else ".")
    )


def _peak(row: pd.Series) -> str:
    told = f"{row['peak_low']:.2f} to {row['peak_high']:.2f}" if pd.notna(row["peak_low"]) else "no interval"
    return f"t = {row['peak']:.2f} [{told}] ({row['name']}, {row['unit']}, {row['group']})"


def without_void(row: dict[str, object], own: pd.DataFrame, ranks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Definitions and rank correlations of a row, one of before the excess over the optimal denoiser was taken on training images
    without it: on held-out ones it says nothing."""
    if "excess_over_optimal_on" in row and pd.notna(row["excess_over_optimal_on"]):
        return own, ranks
    numbers = interval_names("peak_t", "share_below")
    old = own["definition"] == OVER_OPTIMAL
    own = own.astype(dict.fromkeys(numbers, float)).assign(definition=own["definition"].replace(OVER_OPTIMAL, VOID))
    own.loc[old, numbers] = np.nan
    both = ranks[["first", "second"]].eq(OVER_OPTIMAL).any(axis=1)
    ranks = ranks.replace({"first": {OVER_OPTIMAL: VOID}, "second": {OVER_OPTIMAL: VOID}})
    ranks.loc[both, interval_names("rho")] = np.nan
    return own, ranks


def produce(source: Source) -> Drawn:
    parts, every, figures = [], [], {}
    for row in frames.probes(source.rows("why"), "difficulty").to_dict("records"):
        own, ranks = without_void(row, nested(row["definitions"]), nested(row["rank_correlations"]))
        columns = {"definition": "name"} | dict(
            zip(interval_names("peak_t", "share_below"), interval_names("peak", "share"), strict=True)
        )
        parts.append(own.rename(columns=columns).assign(group=row["name"]))
        every.append(ranks.astype(dict.fromkeys(interval_names("rho"), float)).assign(group=row["name"]))
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
    figures = {"": (forest(table, panels), table), **figures}
    return Drawn(figures, sentence(table, pd.concat(every, ignore_index=True)))


if __name__ == "__main__":
    main(produce, __file__)
