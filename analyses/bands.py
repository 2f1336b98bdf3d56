"""At which noise level each spatial frequency of the image is known: coarse before fine?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from _common import Drawn, Source, main, said
from _stored import curves

from consistency_lab.intervals import as_value, interval_of
from consistency_lab.paper.plots import studies
from consistency_lab.plots import probe_frames

LOWEST = -0.3  # estimates of an eps network at high noise can be worse than the mean by orders of magnitude


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """Of the first model. ``quantity`` "known": the share of a band's variance that the estimate at ``t`` explains, ``value, low, high``.

    "half": the time at which that share is a half, in the same columns.
    """
    table, model = probe_frames.structure(result), str(result["model"].values[0])
    parts = probe_frames.parts(result).set_index("part")
    bands = parts[parts["of"] == "band"]["words"].str.replace("band", "frequency")
    known = table[(table["quantity"] == "fixed") & (table["name"] == model)].assign(quantity="known")
    known["log_snr"] = known["log_snr"].replace(np.inf, np.nan)
    half = probe_frames.switches(result)
    half = half[half["name"] == model].assign(quantity="half")
    half = half.drop(columns="t").assign(**as_value(interval_of(half, "t")))
    both = pd.concat([known, half], ignore_index=True)
    both = both[both["part"].isin(bands.index)].assign(words=both["part"].map(bands))
    return both[["part", "t", "log_snr", "value", "low", "high", "quantity", "words"]].reset_index(drop=True)


def with_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``words`` for each band, which data of earlier versions say in the names of the parts alone."""
    if "words" in table:
        return table
    return table.assign(
        words=["frequency {1:g} to {2:g}".format(*probe_frames.older_part(part)) for part in table["part"]]
    )


def sentence(table: pd.DataFrame) -> str:
    """Neighbouring bands are told apart where their intervals do not overlap."""
    parts, earlier, later, pairs = [], 0, 0, 0
    table = with_words(table)
    half = table[table["quantity"] == "half"]
    for name, own in half.groupby("name", sort=False):
        rows = own.dropna(subset=["value"]).to_dict("records")
        pairs += len(rows) - 1
        earlier += sum(a["low"] > b["high"] for a, b in pairwise(rows))
        later += sum(a["high"] < b["low"] for a, b in pairwise(rows))
        times = (
            f"t = {said(row['value'], row['low'], row['high'], 2)} ({row['words']})" for row in (rows[0], rows[-1])
        )
        parts.append(f"{name} {' and '.join(times)}")
    return (
        f"Half of the coarsest and of the finest band is known (0 = what the mean image knows) at: {'; '.join(parts)}; of {pairs} "
        f"pairs of neighbouring bands the coarser is known first in {earlier}, the finer in {later}, and {pairs - earlier - later} are "
        "not told apart."
    )


def produce(source: Source) -> Drawn:
    table = curves(source, "bands", "structure", frame_of)
    drawn = with_words(table[table["quantity"] == "known"])
    drawn = drawn.assign(panel=drawn["name"], name=drawn["words"])
    labels = {
        family: f"{family}: share of the band\nthat is known (no unit)" for family in dict.fromkeys(table["name"])
    }
    figure = studies.curves(
        drawn, "t", "time t  (1 = noise, 0 = data)", labels, lines={"mean image": 0.0}, ylim=(LOWEST, 1.03), height=2.4
    )
    return Drawn({"": (figure, table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
