"""Figure of reproducibility and generalisation: shares of copies by threshold, beside those by chance and of training images."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names
from consistency_lab.metrics.copy_detection import THRESHOLD
from consistency_lab.plots import reading
from consistency_lab.plots.bands import draw_lines, long_frame, styles
from consistency_lab.plots.theme import MUTED, NULL, REFERENCE, new_figure, note, themed

CHANCE, TRAINING, FAMILY = "other noise (null)", "training images", "all models"


def copies_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("RP", "GL"), of (a pair or model, or the control), threshold, value, low, high."""
    ds = reading.need(ds, "reproducibility", *interval_names("rp"), "null_rp")
    chance = ds.assign(mean_null=ds["null_rp"].mean("pair"))
    parts = [long_frame(ds, "family_rp", quantity="RP", of=FAMILY)] if "family_rp" in ds else []
    parts.append(long_frame(ds, "rp", quantity="RP").rename(columns={"pair": "of"}))
    parts.append(long_frame(chance, "mean_null", quantity="RP", of=CHANCE))
    if "gl" in ds:
        parts.append(long_frame(ds, "gl", quantity="GL").rename(columns={"model": "of"}))
    if "training_gl" in ds:
        parts.append(long_frame(ds, "training_gl", quantity="GL", of=TRAINING))
    return pd.concat(parts, ignore_index=True)[["quantity", "of", "threshold", "value", "low", "high"]]


@themed
def copies(ds: xr.Dataset) -> Figure:
    """RP by threshold beside the share of copies by chance (left); GL of each model beside that of the training images (right)."""
    table = copies_frame(ds)
    figure, axes = new_figure(9.2, 3.2, 1, 2)
    for ax, quantity, title in zip(axes[0], ("RP", "GL"), ("reproducibility (RP)", "generalisation (GL)"), strict=True):
        part = table[table["quantity"] == quantity]
        of = [str(name) for name in dict.fromkeys(part["of"]) if name not in (CHANCE, TRAINING)]
        lines = styles([FAMILY] if FAMILY in of else of)
        lines += [
            (name, NULL if name == CHANCE else REFERENCE, (0, (1.5, 1.5)))
            for name in (CHANCE, TRAINING)
            if (part["of"] == name).any()
        ]
        if part.empty:
            note(ax, "made without the training set")
        draw_lines(ax, part, "threshold", "of", lines)
        ax.axvline(THRESHOLD, color=MUTED, lw=0.8, ls=(0, (4, 3)))
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel(f"cosine above which two images are copies ({THRESHOLD:g}: Zhang et al.)")
        ax.set_ylabel("share of images")
        ax.set_title(title)
    return figure
