"""A score beside what it has to be held against: other noise, the same model sampled finer, and denoisers that need no training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import Drawn, Source, main, of

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest
from consistency_lab.plots.reading import REFERENCE_NAMES

METRIC = "mse"
SCORE, CEILING = "models with each other", "a model with itself, at twice the steps (ceiling)"


def table_of(own: pd.DataFrame) -> pd.DataFrame:
    """``group`` (the family), ``name`` (what it is compared with), ``score, score_low, score_high, role``, and of the score ``fit``."""
    lines = []
    for row in own.to_dict("records"):
        facts = {"group": row["family"], "diffusion": row["diffusion"]}
        score = as_columns("score", interval_of(row, f"{METRIC}_score"))
        lines.append({**facts, "role": "score", "name": SCORE, **score, "fit": row["fit"]})
        ceiling, null = row.get(f"{METRIC}_ceiling", np.nan), row[f"{METRIC}_null"]
        if pd.notna(ceiling):
            lines.append({**facts, "role": "ceiling", "name": CEILING, "score": 1 - ceiling / null})
        for reference in frames.references_of(own):
            if pd.notna(row.get(f"to_{reference}", np.nan)):
                ends = as_columns("score", interval_of(row, f"to_{reference}"))
                name = f"with the {REFERENCE_NAMES.get(reference, reference)}"
                lines.append({**facts, "role": "reference", "name": name, **ends})
    table = pd.DataFrame(lines).reindex(
        columns=["group", "name", "role", "score", "score_low", "score_high", "diffusion", "fit"]
    )
    table["fit"] = table["fit"].astype(object).where(table["fit"].notna(), None)
    return table


def sentence(table: pd.DataFrame) -> str:
    """Above the null, and above every reference, by intervals; the ceiling is a single number a family."""
    parts, above, more = [], 0, 0
    families = list(table[table["diffusion"]].groupby("group", sort=False))
    for name, own in families:
        score = own[own["role"] == "score"].iloc[0]
        above += score["score_low"] > 0
        text = f"{name} {of(score, 'score')}"
        ceiling, references = own[own["role"] == "ceiling"], own[own["role"] == "reference"]
        if len(ceiling):
            text += f" under a ceiling of {ceiling.iloc[0]['score']:.3f}"
        if len(references):
            best = references.loc[references["score"].idxmax()]
            more += score["score_low"] > best["score_high"]
            text += f", {best['name']} {of(best, 'score')}"
        parts.append(text)
    rest = table[~table["diffusion"] & (table["role"] == "score")]
    others = "; " + "; ".join(f"{row['group']} {of(row, 'score')}" for _, row in rest.iterrows()) if len(rest) else ""
    return (
        f"Score ({METRIC}; other noise = 0): {'; '.join(parts)}{others}: of {len(families)} diffusion families {above} lie above other "
        f"noise and {more} above every denoiser that needs no training."
    )


def produce(source: Source) -> Drawn:
    table = table_of(frames.families(source.rows("likeness")))
    low = min(-0.08, float(table["score_low"].min()) - 0.03)
    panel = Panel(
        "score", f"score, {METRIC} (no unit; 1 = the same image)", lines={"other noise (null)": 0.0}, limits=(low, 1.02)
    )
    return Drawn({"": (forest(table, [panel]), table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
