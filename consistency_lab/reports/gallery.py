"""The images of a comparison as one block of bytes that the page draws from; where models agree most and least."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.plots import reading

# Raw bytes; base64 adds a third. Eight models on 32 x 32 colour images fit by leaving out times, evenly.
BUDGET = 6_000_000


@dataclass(frozen=True)
class Row:
    """A row: name, group ("model", "reference", "nearest"), where its bytes begin, how many times it has."""

    name: str
    group: str
    offset: int
    times: int


@dataclass(frozen=True)
class Gallery:
    """Rows x shared noise x t. ``samples`` are the numbers of the noise images; the page's script reads ``payload``."""

    rows: tuple[Row, ...]
    samples: tuple[int, ...]
    height: int
    width: int
    payload: dict[str, Any]


def gallery(ds: xr.Dataset, budget: int = BUDGET) -> Gallery | None:
    """The images of a comparison, or None when it has none. Times are left out evenly to stay in ``budget`` bytes."""
    if "images" not in ds:
        return None
    blocks = [("model", name, ds["images"].isel(model=i)) for i, name in enumerate(reading.names(ds, "model"))]
    if "reference_images" in ds:
        for i, name in enumerate(reading.names(ds, "reference")):
            blocks.append(
                ("reference", reading.REFERENCE_NAMES.get(name, name), ds["reference_images"].isel(reference=i))
            )
    sizes = ds.sizes
    a_time = len(blocks) * sizes["shown"] * sizes["channel"] * sizes["row"] * sizes["column"]
    count = min(sizes["t"], max(2, budget // a_time))
    keep = np.unique(np.linspace(0, sizes["t"] - 1, count).round().astype(int))
    if "nearest_images" in ds:
        for i, name in enumerate(reading.names(ds, "model")):
            blocks.append(("nearest", name, ds["nearest_images"].isel(model=i).expand_dims("t")))
    rows, pieces, offset = [], [], 0
    for group, name, images in blocks:
        chosen = images.isel(t=keep) if group != "nearest" else images
        pixels = chosen.transpose("t", "shown", "row", "column", "channel").values.astype(np.uint8)
        rows.append(Row(name, group, offset, len(pixels)))
        pieces.append(pixels.tobytes())
        offset += pixels.size
    t, log_snr = ds["t"].values[keep], ds["log_snr"].values[keep]
    payload = {
        "bytes": base64.b64encode(b"".join(pieces)).decode(),
        "rows": [{"offset": row.offset, "times": row.times} for row in rows],
        "columns": sizes["shown"],
        "height": sizes["row"],
        "width": sizes["column"],
        "channels": sizes["channel"],
        "times": [_time_text(a, b) for a, b in zip(t, log_snr, strict=True)],
    }
    return Gallery(tuple(rows), shown_samples(ds), sizes["row"], sizes["column"], payload)


def shown_samples(ds: xr.Dataset) -> tuple[int, ...]:
    """Which samples the images show: the coordinate of ``shown`` where there is one, else the first ones."""
    if "shown" in ds.coords:
        return tuple(int(i) for i in ds["shown"].values)
    return tuple(range(ds.sizes["shown"]))


def extremes(ds: xr.Dataset, metric: str, count: int = 4) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The most and the least consistent of the samples that are shown: (column, mean over pairs at t = 0)."""
    reading.check_metric(ds, metric)
    mean = ds["distance"].isel(t=-1).sel(metric=metric).mean("pair").values
    values = [float(mean[sample]) for sample in shown_samples(ds)]
    order = sorted(range(len(values)), key=values.__getitem__, reverse=metric in reading.HIGHER_IS_ALIKE)
    count = min(count, len(order) // 2)
    return [(i, values[i]) for i in order[:count]], [(i, values[i]) for i in order[::-1][:count]]


def _time_text(t: float, log_snr: float) -> str:
    end = ", the final image" if t == 0 else ""
    level = "∞" if np.isinf(log_snr) else f"{log_snr:+.1f}".replace("-", "−")
    return f"t = {t:.2f}, log-SNR = {level}{end}"
