"""Whether two models share a basin, beside how alike their images are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.kinds.base import Drawing, Kind, Section, Table
from consistency_lab.kinds.numbers import OVER_IMAGES, interval_text, number, plain, records
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots import connectivity as paths
from consistency_lab.plots import probe_frames, reading


class Connectivity(Kind):
    place = 70

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "paths",
            paths.connectivity(ds),
            probe_frames.connectivity(ds),
            f"Loss on paths between {_pair(ds)}, and their barriers by noise level.",
            "Held-out images, the same noise everywhere. A barrier is the highest loss above the chord between the two models' losses, "
            "with its 95 % interval over images; it is a maximum, so never below 0.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        single = {name: plain(float(x)) for name, x in ds.data_vars.items() if not x.dims}
        return {
            "rows": records(probe_frames.connectivity(ds)),
            "numbers": single,
            "barriers": records(probe_frames.barriers(ds)),
        }

    def section(self, ds: xr.Dataset) -> Section:
        rows = [(f"barrier, {path}", interval_text(ds.sel(path=path), "barrier")) for path in reading.names(ds, "path")]
        rows.append(("loss of answering with the data mean", interval_text(ds, "mean_loss")))
        rows.append(("consistency of the images", interval_text(ds, "consistency")))
        rows.append(
            ("distance of the weights", number(float(ds["weight_distance"]) if "weight_distance" in ds else math.nan))
        )
        if "aligned_weight_distance" in ds:
            rows.append(("distance of the weights after alignment", number(float(ds["aligned_weight_distance"]))))
        else:
            rows.append(("alignment", str(ds.attrs.get("alignment", "not recorded"))))
        return Section(
            f"Do they share a basin? {_pair(ds)}", [*self.figures(ds), Table(("what", "value [95 %]"), rows)]
        )

    def view(self, ds: xr.Dataset) -> View:
        names = tuple(reading.names(ds, "path"))
        return View((Control("path", "path", names, names[0]),), lambda path: _along(ds, path))


def _pair(ds: xr.Dataset) -> str:
    return f"{ds.attrs.get('first', 'the first model')} and {ds.attrs.get('second', 'the second')}"


def _along(ds: xr.Dataset, path: str) -> tuple[Figure, str]:
    """The loss along one path between two models, and its barrier."""
    one = ds.sel(path=[path])
    text = interval_text(one, "barrier")
    return paths.connectivity(one), f"barrier on the path {path}: {text} (loss above the chord; {OVER_IMAGES})."
