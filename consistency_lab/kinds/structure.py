"""Which noise level decides the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.kinds.base import Drawing, Kind, Section, Table
from consistency_lab.kinds.numbers import records, with_interval
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots import probe_frames, reading
from consistency_lab.plots import structure as levels
from consistency_lab.plots.theme import MUTED


class Structure(Kind):
    place = 30

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "levels",
            levels.structure(ds),
            probe_frames.structure(ds),
            "What is known of the final image along t, and whose image it is when model or noise is exchanged at t.",
            "Upper: the share of the final images' variance that the estimate made at t explains. Lower: at t the state is handed to the "
            "second model, or the noise in it is exchanged for that of a second trajectory; then sampling goes on. Solid: distance to the "
            "first image over the sum of both (root mean square); dotted: share of samples nearer to the second image. Bands are 95 % "
            "over samples.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(probe_frames.structure(ds)), "switches": records(probe_frames.switches(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        table = probe_frames.switches(ds)
        rows = [
            (_SAID.get(row["what"], row["what"]), row["name"], with_interval(*interval_of(row, "t")))
            for row in table[table["part"].isin(["", "mse"])].to_dict("records")
        ]
        title = "Which noise level decides the image? " + ", ".join(reading.names(ds, "model"))
        return Section(title, [*self.figures(ds), Table(("what", "of", "t [95 %]"), rows)])

    def view(self, ds: xr.Dataset) -> View:
        times = tuple(map(float, ds["t"].values))
        control = Control("t", "t", times, times[len(times) // 2])
        return View((control,), lambda t: (_marked(ds, t), _known(ds, t)))


_SAID = {"half of mse known": "half of the image is known"}


def _marked(ds: xr.Dataset, t: float) -> Figure:
    """The figure, the time that is asked about marked."""
    figure = levels.structure(ds)
    for ax in figure.axes:
        ax.axvline(t, color=MUTED, lw=1)
    return figure


def _known(ds: xr.Dataset, t: float) -> str:
    """What each model knows of its final image at that time."""
    table = probe_frames.structure(ds)
    rows = table[(table["quantity"] == "fixed") & (table["part"] == "mse") & (table["t"] == t)].to_dict("records")
    known = "; ".join(f"{row['name']} {with_interval(row['value'], row['low'], row['high'])}" for row in rows)
    return f"share of the final images' variance that the x0 estimate explains at t = {t:.2f}: {known} (95 % over samples)."
