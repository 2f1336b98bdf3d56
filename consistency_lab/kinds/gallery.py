"""The images of a comparison as one block of bytes that the page draws from; where models agree most and least."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.plots import reading
from consistency_lab.similarity.named import column_word, sample_names, sample_numbers
from consistency_lab.similarity.quantities import higher_is_alike

# Raw bytes; base64 adds a third. Eight models on 32 x 32 colour images fit by leaving out times, evenly.
BUDGET = 6_000_000


@dataclass(frozen=True)
class Row:
    """A row: name, group ("model", "reference", "nearest", "extreme"), where its bytes begin, how many times and columns it has."""

    name: str
    group: str
    offset: int
    times: int
    columns: int


@dataclass(frozen=True)
class Gallery:
    """Rows x shared noise x t; rows of the group "extreme" hold the samples on which models agree most and least, final images only.

    ``samples`` are what the columns of all other rows are called, ``of`` ("noise" or "image") says what these are, and ``names`` has the
    name of every sample by its number; the page's script reads ``payload``.
    """

    rows: tuple[Row, ...]
    samples: tuple[str, ...]
    of: str
    names: dict[int, str]
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
    moving = len(blocks)
    for group, stills in (("nearest", ds.get("nearest_images")), ("extreme", _extreme_images(ds))):
        if stills is not None:
            for i, name in enumerate(reading.names(ds, "model")):
                blocks.append((group, name, stills.isel(model=i).expand_dims("t")))
    rows, pieces, offset = [], [], 0
    for i, (group, name, images) in enumerate(blocks):
        chosen = images.isel(t=keep) if i < moving else images
        pixels = chosen.transpose("t", ..., "row", "column", "channel").values.astype(np.uint8)
        rows.append(Row(name, group, offset, *pixels.shape[:2]))
        pieces.append(pixels.tobytes())
        offset += pixels.size
    t, log_snr = ds["t"].values[keep], ds["log_snr"].values[keep]
    payload = {
        "bytes": base64.b64encode(b"".join(pieces)).decode(),
        "npy": base64.b64encode(_npy_header((sizes["model"], len(keep), sizes["shown"], *pixels.shape[2:]))).decode(),
        "models": sizes["model"] * len(keep) * sizes["shown"] * pixels[0, 0].size,
        "rows": [{"offset": row.offset, "times": row.times, "columns": row.columns} for row in rows],
        "height": sizes["row"],
        "width": sizes["column"],
        "channels": sizes["channel"],
        "times": [_time_text(a, b) for a, b in zip(t, log_snr, strict=True)],
    }
    names = sample_names(ds)
    samples, of = tuple(names.get(number, str(number)) for number in shown_samples(ds)), column_word(ds)
    return Gallery(tuple(rows), samples, of, names, sizes["row"], sizes["column"], payload)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """What numpy writes before the bytes of such an array: the page puts it before the models' pixels to let a reader save them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _extreme_images(ds: xr.Dataset) -> xr.DataArray:
    """Of results that do not carry the extremes of all samples, those of the samples that are shown."""
    return ds["extreme_images"] if "extreme_images" in ds else ds["images"].isel(t=-1)


def shown_samples(ds: xr.Dataset) -> tuple[int, ...]:
    """Which samples the images show: the coordinate of ``shown`` where there is one, else the first ones."""
    if "shown" in ds.coords:
        return tuple(int(i) for i in ds["shown"].values)
    return sample_numbers(ds)[: ds.sizes["shown"]]


def extremes(ds: xr.Dataset, metric: str, count: int = 4) -> dict[str, list[tuple[int, int, float]]]:
    """The "most" and the "least" consistent samples: (column in the rows "extreme", number of the sample, mean over pairs at t = 0).

    They are those of all samples where the result carries their images, else those of the samples that are shown.
    """
    reading.check_metric(ds, metric)
    mean = dict(
        zip(sample_numbers(ds), ds["distance"].isel(t=-1).sel(metric=metric).mean("pair").values.tolist(), strict=True)
    )
    numbers = tuple(int(i) for i in ds["extreme"].values) if "extreme_images" in ds else shown_samples(ds)
    listed = [(column, number, mean[number]) for column, number in enumerate(numbers)]
    listed.sort(key=lambda entry: entry[2], reverse=higher_is_alike(ds, metric))
    count = min(count, len(listed) // 2)
    return {"most": listed[:count], "least": listed[::-1][:count]}


def _time_text(t: float, log_snr: float) -> str:
    end = ", the final image" if t == 0 else ""
    level = "∞" if np.isinf(log_snr) else f"{log_snr:+.1f}".replace("-", "−")
    return f"t = {t:.2f}, log-SNR = {level}{end}"
