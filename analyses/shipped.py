"""Every two of the models that ship with the package: diffusion models of one architecture and of two, GANs, VAEs."""

from __future__ import annotations

import pandas as pd
from _common import METRICS, Drawn, Source, listed, main, of

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest

SEEDS, NETWORKS, OTHERS = "diffusion, other seeds", "diffusion, other architectures", "GANs and VAEs, other seeds"


def pairs(rows: list[frames.Row], metric: str = METRICS[0]) -> pd.DataFrame:
    """A row a pair: ``group``, ``name`` and the score with its ends, over noise."""
    table = []
    for row in rows:
        for pair in row["values"]["pairs"] if row["spec"]["row"] == "shipped" else ():
            names = [str(pair[key]).partition("-")[2] for key in ("first", "second")]  # without the set's name
            kinds = {name.rpartition("-")[0] for name in names}
            group = OTHERS if kinds <= {"gan", "vae"} else SEEDS if len(kinds) == 1 else NETWORKS
            score = as_columns("score", interval_of(pair, f"{metric}_score"))
            table.append({"group": group, "name": " | ".join(names), **score})
    if not table:
        raise frames.MissingRows("there are no rows of the models that ship")
    order = [SEEDS, NETWORKS, OTHERS]
    frame = pd.DataFrame(table)
    return frame.sort_values(
        ["group", "score"], key=lambda c: c.map(order.index) if c.name == "group" else -c, ignore_index=True
    )


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for group, own in table.groupby("group", sort=False):
        low, high = own.loc[own["score"].idxmin()], own.loc[own["score"].idxmax()]
        parts.append(f"{group} from {low['name']} {of(low, 'score')} to {high['name']} {of(high, 'score')}")
    return f"Of the models that ship ({METRICS[0]}; intervals over noise): {listed(parts)}."


def produce(source: Source) -> Drawn:
    table = pairs(source.rows("zoo"))
    limits = (min(-0.08, float(table["score_low"].min()) - 0.03), 1.02)
    panel = Panel("score", "consistency score, mse (no unit)", lines={"other noise (null)": 0.0}, limits=limits)
    return Drawn({"": (forest(table, [panel]), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
