"""Models about the same states, beside the same models along their own trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Section, Table
from consistency_lab.kinds.numbers import interval_text, number, records
from consistency_lab.plots import reading
from consistency_lab.plots.frozen import frozen, frozen_frame


class Frozen(Kind):
    place = 12

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "drift",
            frozen(ds),
            frozen_frame(ds),
            "Distance of the models' estimates about the same states and along their own trajectories, and the drift between the two.",
            "Left: means over pairs. Right: the share of the distance along own trajectories that the functions alone do not make, each "
            "pair with its 95 % interval over noise and states. 0: where the models go makes no difference; 1: about the same states they "
            "agree.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        if "drift" not in ds:
            return f"Frozen comparison of {ds.sizes['model']} models, without one along their own trajectories: no drift is known."
        one, pair = _noisiest_to_cleanest(ds), str(ds["pair"].values[0])
        drift = interval_text(one.isel(t=-1), "drift")
        return f"Drift of {pair} at t = {float(one['t'][-1]):.2g}: {drift} of their distance is made by where their trajectories lead."

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": {name: records(frozen_frame(ds, name)) for name in reading.names(ds, "metric")}}

    def section(self, ds: xr.Dataset) -> Section:
        metric = reading.headline_metric(ds)
        rows = []
        for pair in reading.names(ds, "pair"):
            one = ds.sel(pair=pair, metric=metric)
            for at in sorted({0, ds.sizes["t"] // 2, ds.sizes["t"] - 1}):
                here = one.isel(t=at)
                drift = interval_text(here, "drift") if "drift" in ds else "not measured"
                rows.append((f"{pair}, t = {float(here['t']):.2g}", number(float(here["distance"].mean())), drift))
        table = Table((f"pair, {metric}", "distance about the same states", "drift [95 %]"), rows)
        return Section("Asked about the same states", [*self.figures(ds), table, Note(str(ds.attrs.get("note", "")))])


def _noisiest_to_cleanest(ds: xr.Dataset) -> xr.Dataset:
    one = ds.isel(pair=0).sel(metric=reading.headline_metric(ds))
    return one.isel(t=np.argsort(-one["t"].values, kind="stable"))
