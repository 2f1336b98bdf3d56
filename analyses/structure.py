"""The paper's figure 8: the x0 estimate on its way from noise to data, and when half of the final image is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from _common import Drawn, Source, main, of
from _stored import committed, curves, image_frame, images_of, short
from matplotlib.figure import Figure

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.paper.plots import frames, studies
from consistency_lab.plots import probe_frames
from consistency_lab.plots.gallery import gallery_rows, grid
from consistency_lab.plots.look import current
from consistency_lab.similarity.compare import compare

SAMPLES, LEVELS = 2, 10
LOWEST = -0.3  # estimates of an eps network at high noise can be worse than the mean by orders of magnitude


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """The share of the variance of final images that the first model's estimate at t explains: ``t, log_snr, value, low, high``."""
    table = probe_frames.structure(result)
    own = (table["quantity"] == "fixed") & (table["part"] == "mse") & (table["name"] == str(result["model"].values[0]))
    return table[own][["t", "log_snr", "value", "low", "high"]].replace(np.inf, np.nan)


def estimates(source: Source, rows: list[frames.Row]) -> pd.DataFrame:
    """Images of the estimates of the first model of every row, by the store's models."""
    members, parts = {tuple(row["spec"]["models"]): row for row in rows}, []
    for family in source.families():
        row = members.get(family.identities[:2])
        if row is None:
            continue
        found = compare(
            family.models()[:2], SharedNoise(0), count=SAMPLES, metrics=("mse",), sampler=Sampler(steps=25), levels=LEVELS,
            shown=SAMPLES, ceiling=False,
        )  # fmt: skip
        for t in found["t"].values:
            pixels = gallery_rows(found, float(t))[0][1]
            parts.append(image_frame(pixels, row=short(row), family=family.name, t=float(t)))
    if len({part["row"].iloc[0] for part in parts}) < len(rows):
        raise frames.MissingRows(
            f"the store {source.store} lacks models that the rows of the probe 'structure' are of."
        )
    return pd.concat(parts, ignore_index=True)


def strip(table: pd.DataFrame) -> Figure:
    """A line a family and sample, noise at the left."""
    lines = []
    for (family, column), own in table.groupby(["family", "column"], sort=False):
        ordered = own.sort_values("t", ascending=False).assign(column=range(len(own)))
        lines.append((family if column == 0 else "", images_of(ordered)))
    times = sorted(set(table["t"]), reverse=True)
    figure = grid(lines, "estimate of the image at time t (1 = noise, 0 = the image that is drawn)", len(times))
    for ax, t in zip(figure.axes, times, strict=False):
        ax.set_title(
            f"{t:.2g}" if current().narrow else f"t = {t:.2g}", fontsize=7.5, fontweight="normal", loc="center"
        )
    return figure


def sentence(table: pd.DataFrame) -> str:
    times = [f"{row['name']} t = {of(row, 'half_known_t', 2)}" for _, row in table.iterrows()]
    high = int((table["half_known_t_low"] > 0.5).sum())
    return (
        "On the way from noise (t = 1) to data the estimate explains half of the final image (the mean image explains none) at: "
        f"{'; '.join(times)}: in the noisier half of the times in {high} of {len(table)} families."
    )


def produce(source: Source) -> Drawn:
    rows = source.rows("why")
    lines = curves(source, "structure", "structure", frame_of)
    figure = studies.curves(
        lines.assign(panel="known"), "t", "time t  (1 = noise, 0 = data)",
        {"known": "share of the final image that\nthe estimate explains (no unit)"},
        lines={"mean image": 0.0, "half": 0.5}, ylim=(LOWEST, 1.03),
    )  # fmt: skip
    those = frames.probe_rows(rows, "structure")
    images = committed(source, "structure", those, "images") if source.store is None else estimates(source, those)
    return Drawn({"": (figure, lines), "images": (strip(images), images)}, sentence(frames.probes(rows, "structure")))


if __name__ == "__main__":
    main(produce, __file__)
