"""The paper's ablation over the center of CLTS: how much sooner than uniform times each reaches the target."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import Drawn, Source, main, said

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots.race import speedups
from consistency_lab.paper.race.table import race_table


def sentence(table: pd.DataFrame) -> str:
    known = table[(table["role"] == "curriculum") & (table["bound"] == "")]
    seeds = table[(table["role"] == "curriculum") & (table["bound"] != "")]["contestant"].tolist()
    lost = f"; {', '.join(seeds)} never arrived in some seed and have bounds alone" if seeds else ""
    if known.empty:
        return f"No center of CLTS reached the target in every seed{lost}."
    best = known.loc[known["speedup"].idxmax()]
    low = best["speedup_low"]
    verdict = (
        "no interval there is"
        if not np.isfinite(low)
        else "sooner"
        if low > 1
        else "later"
        if best["speedup_high"] < 1
        else "not told from 1"
    )
    return (
        f"Of {len(known) + len(seeds)} centers, {best['contestant']} is fastest, {said(*interval_of(best, 'speedup'))} times as fast "
        f"as uniform times to the target ({verdict}); it is the best of several, which flatters it{lost}."
    )


def produce(source: Source) -> Drawn:
    race = source.race("centers")
    table = race_table(race)
    table = table[table["against"] == table["against"].iloc[0]]
    return Drawn({"": (speedups(race), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
