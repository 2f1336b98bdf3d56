"""What linear denoisers of disjoint sets would agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import interval_text, number, records
from consistency_lab.plots.prediction import prediction, prediction_frame


class Prediction(Kind):
    place = 14

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "prediction",
            prediction(ds),
            prediction_frame(ds),
            "Predicted consistency score of two linear denoisers of disjoint sets, along the noise levels and by principal component.",
            "In closed form, from the images' covariance. 1: the same noise gives the same image; 0: no more alike than under other noise. "
            f"Compare with models of disjoint sets. Bands: {ds.attrs['interval']}.",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        at = ds.isel(t=int(np.argmin(ds["t"].values)), states=0)
        said = ", ".join(f"{interval_text(at.sel(n=n), 'score')} for n = {n}" for n in at["n"].values)
        return (
            f"Predicted score (mse) of two linear denoisers of disjoint sets, {at['states'].item()}, t = {number(float(at['t']))}: {said}; "
            f"interval: {ds.attrs['interval']}. {ds.attrs['note']}"
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(prediction_frame(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        at = ds.isel(t=int(np.argmin(ds["t"].values)), states=0)
        rows = [
            (
                f"n = {n}",
                interval_text(at.sel(n=n), "score"),
                *(number(float(at[name].sel(n=n))) for name in ("distance", "null", "kappa")),
            )
            for n in at["n"].values
        ]
        head = (
            "images a set",
            "score [95 % of sets]",
            "distance",
            "null (other noise)",
            "noise variance that is acted on",
        )
        where = f"{at['states'].item()}, t = {number(float(at['t']))}, squared errors:"
        parts: list[Part] = [*self.figures(ds), where, Table(head, rows), Note(str(ds.attrs["note"]))]
        return Section("What linear denoisers would agree on", parts)
