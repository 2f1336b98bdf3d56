"""The paper's interpolation: the loss on the straight line through the weights of two models, of diffusion models, GANs and a VAE."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr
from _common import KINDS, Drawn, Source, claim, main, of
from _stored import curves

from consistency_lab.intervals import as_value, interval_of
from consistency_lab.paper.plots import frames, studies

EVEN = math.log(2)  # nats: the loss of a discriminator or generator that cannot tell real from made
NEAR = 0.02  # nats from it


def frame_of(line: xr.Dataset) -> pd.DataFrame:
    """``position, value, low, high``: the loss over the mean of the losses of the two models; ``ends``: that mean, in ``unit``."""
    at = line["position"].values
    ends = float(np.mean([line["loss"].values[np.argmin(abs(at - end))] for end in (0.0, 1.0)]))
    values = as_value(loss / ends for loss in interval_of(line, "loss"))
    return pd.DataFrame({"position": at, **values, "ends": ends, "unit": line.attrs["units"]})


def sentence(table: pd.DataFrame, lines: pd.DataFrame) -> str:
    """The paper claims that diffusion models' lines are smoother; those of a GAN's networks at their draw are flat for another reason."""
    number = "relative_barrier"
    parts = "; ".join(f"{row['name']} {of(row, number)}" for _, row in table.iterrows())
    ends = lines[lines["unit"].str.endswith("nats")].groupby("name", sort=False)["ends"].first()
    even = [str(name) for name, loss in ends.items() if abs(loss - EVEN) < NEAR]
    caution = (
        f"; {'; '.join(even)} {'lie' if len(even) > 1 else 'lies'} within {NEAR} nats of ln 2, where a part that tells nothing is flat"
        if even
        else ""
    )
    return f"Barrier between two models over the mean of their losses: {parts}; {claim(table, number)}{caution}."


def produce(source: Source) -> Drawn:
    table = frames.probes(source.rows("why"), "between")
    table["kind"] = [source.kind(family) for family in table["family"]]
    lines = curves(source, "interpolation", "between", frame_of)
    lines["panel"] = [source.kind(family) for family in lines["family"]]
    labels = {
        kind: f"{kind}: loss over the mean\nof the two (no unit; log scale)"
        for kind in KINDS
        if kind in set(lines["panel"])
    }
    inside = lines[lines["position"].between(0, 1)]
    limits = (0.8 * min(1.0, inside["value"].min()), 1.5 * inside["value"].max())
    figure = studies.curves(
        lines, "position", "position on the line through both weights (0 = first model, 1 = second)", labels,
        lines={"the models' own": 1.0}, logy=True, ylim=limits, height=2.3,
    )  # fmt: skip
    return Drawn({"": (figure, lines.drop(columns="panel"))}, sentence(table, lines))


if __name__ == "__main__":
    main(produce, __file__)
