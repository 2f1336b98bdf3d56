"""From definitions of difficulty, structure and connectivity to what the page's template needs."""

from __future__ import annotations

from typing import Any

import xarray as xr

from consistency_lab.intervals import interval_of
from consistency_lab.plots import connectivity as paths
from consistency_lab.plots import definitions, probe_frames, reading
from consistency_lab.plots import structure as levels
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table, with_void_marked
from consistency_lab.reports.numbers import number, with_interval
from consistency_lab.reports.svg import picture

Section = dict[str, Any]


def definitions_of(ds: xr.Dataset, key: str) -> Section | None:
    """Which definition calls which time hard: two pictures and a table; None for a result without profiles."""
    if "profile" not in ds:
        return None
    ds = with_void_marked(ds)
    table, model = difficulty_table(ds), reading.model_of(ds)
    rows = []
    for row in table.to_dict("records"):
        peak_at = interval_of(row, "peak_t")
        told = f"{peak_at.low:.2f} to {peak_at.high:.2f}" if peak_at.low == peak_at.low else "no interval"
        peak = f"{row['peak_t']:.2f} ({told})" if row["defined"] else "undefined"
        share = with_interval(*interval_of(row, "share_below"))
        meaning = str(ds["definition_meaning"].sel(definition=row["definition"]).values)
        rows.append((row["definition"], peak, share, f"{row['uniform_below']:.2f}", meaning))
    curves = picture(
        definitions.definitions(ds),
        f"{key}-definitions",
        f"Difficulty of each timestep of {model} by {len(rows)} definitions.",
        "Every definition on its own axis with its 95 % interval over images; the dot is the hardest time. Excess below zero means better "
        "than the closed-form denoiser; that over the optimal denoiser is of training images, which it holds.",
        probe_frames.definitions(ds),
    )
    alike = picture(
        definitions.agreement(ds),
        f"{key}-agreement",
        "Rank correlations between definitions of difficulty.",
        "1: the two order the times alike; −1: what one calls hard the other calls easy. Intervals are over images.",
        difficulty_correlations(ds),
    )
    head = ("definition", "hardest t (those not told from it)", "share at t < 0.5 [95 %]", "if flat", "what it is")
    return {"pictures": (curves, alike), "head": head, "rows": rows}


def structure(ds: xr.Dataset, key: str) -> Section:
    """Which noise level decides the image."""
    table = probe_frames.switches(ds)
    whole = table[~table["what"].str.startswith("half of") | (table["what"] == "half of mse known")]
    words = {"half of mse known": "half of the image is known"}
    rows = [
        (words.get(row["what"], row["what"]), row["name"], with_interval(*interval_of(row, "t")))
        for row in whole.to_dict("records")
    ]
    figure = picture(
        levels.structure(ds),
        f"{key}-levels",
        "What is known of the final image along t, and whose image it is when model or noise is exchanged at t.",
        "Upper: the share of the final images' variance that the estimate made at t explains. Lower: at t the state is handed to the "
        "second model, or the noise in it is exchanged for that of a second trajectory; then sampling goes on. Solid: distance to the "
        "first image over the sum of both (root mean square); dotted: share of samples nearer to the second image. Bands are 95 % over "
        "samples.",
        probe_frames.structure(ds),
    )
    title = "Which noise level decides the image? " + ", ".join(reading.names(ds, "model"))
    return {
        "kind": "structure",
        "key": key,
        "title": title,
        "picture": figure,
        "head": ("what", "of", "t [95 %]"),
        "rows": rows,
    }


def connectivity(ds: xr.Dataset, key: str) -> Section:
    """Whether two models share a basin, beside how alike their images are."""
    rows = [(f"barrier, {path}", _text(ds.sel(path=path), "barrier")) for path in reading.names(ds, "path")]
    rows.append(("loss of answering with the data mean", _text(ds, "mean_loss")))
    rows.append(("consistency of the images", _text(ds, "consistency")))
    rows.append(("distance of the weights", number(float(ds["weight_distance"]))))
    if "aligned_weight_distance" in ds:
        rows.append(("distance of the weights after alignment", number(float(ds["aligned_weight_distance"]))))
    else:
        rows.append(("alignment", str(ds.attrs["alignment"])))
    figure = picture(
        paths.connectivity(ds),
        f"{key}-paths",
        f"Loss on paths between {ds.attrs['first']} and {ds.attrs['second']}, and their barriers by noise level.",
        "Held-out images, the same noise everywhere. A barrier is the highest loss above the chord between the two models' losses, with "
        "its 95 % interval over images; it is a maximum, so never below 0.",
        probe_frames.connectivity(ds),
    )
    return {
        "kind": "connectivity",
        "key": key,
        "title": f"Do they share a basin? {ds.attrs['first']} and {ds.attrs['second']}",
        "picture": figure,
        "head": ("what", "value [95 %]"),
        "rows": rows,
    }


def _text(ds: xr.Dataset, name: str) -> str:
    return with_interval(*interval_of(ds, name))
