"""Curves and images, which are not in the rows but in the results and the models of a store.

One rule for every script that draws them: with ``--store`` they are taken from there; without, they are read from the data of the same
figure, ``ROWS/PRESET/figure-SCRIPT.csv``, which is committed. Every line of such data says in ``row`` to which row it belongs (the first
`DIGITS` digits of its key); if these are not exactly the present rows, the data are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from _common import Source, stem

from consistency_lab.paper.plots import frames
from consistency_lab.store.results import load_result
from consistency_lab.store.runs import Store

DIGITS = 12
_LEVEL = 255  # of a white pixel


def short(row: frames.Row) -> str:
    return str(row["key"])[:DIGITS]


def curves(source: Source, script: str, probe: str, frame_of: Callable[[xr.Dataset], pd.DataFrame]) -> pd.DataFrame:
    """What ``frame_of`` makes of the result behind every row of a probe of the study `why`, with ``row, family, name`` before it.

    Raises:
        MissingRows: there are no such rows; the store lacks a result; or there is no store, and no data of the present rows.
    """
    rows = frames.probe_rows(source.rows("why"), probe)
    if source.store is None:
        return committed(source, script, rows)
    parts = []
    for row in rows:
        spec = row["spec"]
        run = Store(source.store).run("why", probe, spec)
        if not run.done:
            raise frames.MissingRows(
                f"the store {source.store} has no result of the probe {probe!r} of {frames.probed(spec)!r}; "
                f"`consistency-lab study why --preset {source.preset} --store {source.store}` makes it once that row is removed."
            )
        own = {"row": short(row), "family": spec["family"], "name": frames.probed(spec)}
        made = frame_of(load_result(run.folder / "result.nc"))
        parts.append(pd.DataFrame(own, index=made.index).join(made))
    return pd.concat(parts, ignore_index=True)


def committed(source: Source, script: str, rows: Sequence[frames.Row], name: str = "") -> pd.DataFrame:
    """The data of a script's figure as they were written, if they are of exactly these rows. Raises `MissingRows` if not."""
    path = source.folder / source.preset / f"{stem(script, name)}.csv"
    remedy = (
        f"`python analyses/{script}.py --preset {source.preset} --store DIR` makes it from the store with the models."
    )
    if not path.is_file():
        raise frames.MissingRows(f"there is no {path}; {remedy}")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    if set(table["row"].astype(str)) != {short(row) for row in rows}:
        raise frames.MissingRows(f"{path} belongs to other rows than those that are there now; {remedy}")
    return table


def image_frame(pixels: np.ndarray, **labels: Any) -> pd.DataFrame:
    """Images ``(column, height, width, channel)``, 0 to 255, as lines: labels, ``column, height, width, channels`` and ``pixels``."""
    height, width, channels = pixels.shape[1:]
    whole = np.clip(np.rint(pixels), 0, _LEVEL).astype(int)
    texts = [" ".join(map(str, image.ravel())) for image in whole]
    shape = {"height": height, "width": width, "channels": channels}
    return pd.DataFrame({**labels, "column": range(len(texts)), **shape, "pixels": texts})


def images_of(table: pd.DataFrame) -> np.ndarray:
    """The images of lines of `image_frame`: ``(column, height, width, channel)``."""
    first = table.iloc[0]
    shape = tuple(int(first[key]) for key in ("height", "width", "channels"))
    ordered = table.sort_values("column")["pixels"]
    return np.stack([np.array(text.split(), dtype=int).reshape(shape) for text in ordered])
