"""Whose image is it, when another model of the family takes over at time t, and when the noise is exchanged there instead?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from _common import Drawn, Source, main, of, relation
from _stored import curves

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames, studies
from consistency_lab.plots import probe_frames


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """``what``: handed over, in both directions, or noise exchanged, of the first model; 1: the image is the second's, 0: the first's."""
    table = probe_frames.structure(result)
    parts = []
    for quantity, texts in (
        ("handoff relative", ("first to second model", "second to first model")),
        ("swap relative", ("noise exchanged",)),
    ):
        own = table[table["quantity"] == quantity]
        for name, text in zip(dict.fromkeys(own["name"]), texts, strict=False):
            line = own[own["name"] == name][["t", "log_snr", "value", "low", "high"]]
            parts.append(line.assign(what=text, log_snr=line["log_snr"].replace(np.inf, np.nan)))
    return pd.concat(parts, ignore_index=True)


def sentence(table: pd.DataFrame) -> str:
    """The control is the exchange of the noise: a model's mark is set after the noise's where its time lies below."""
    parts, after = [], 0
    for _, row in table.iterrows():
        model, noise = (pd.Series(as_columns("t", interval_of(row, key))) for key in ("handoff_t", "swap_t"))
        told = relation(model, noise, "t")
        after += told == "lies below"
        parts.append(f"{row['name']} t = {of(model, 't', 2)}, which {told} that of the noise, t = {of(noise, 't', 2)}")
    return (
        f"A run that changes to another model of its family ends as near to the one's image as to the other's when it changes at: "
        f"{'; '.join(parts)}; in {after} of {len(table)} families the choice of the model is made later than that of the noise."
    )


def produce(source: Source) -> Drawn:
    table = frames.probes(source.rows("why"), "structure")
    lines = curves(source, "handoff", "structure", frame_of)
    labels = {family: f"{family}: whose image?\n(1 = second's, 0 = first's)" for family in dict.fromkeys(lines["name"])}
    drawn = lines.assign(panel=lines["name"], name=lines["what"])
    figure = studies.curves(
        drawn,
        "t",
        "time t of the change  (1 = noise, 0 = data)",
        labels,
        lines={"even": 0.5},
        ylim=(-0.03, 1.03),
        height=2.2,
    )
    return Drawn({"": (figure, lines)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
