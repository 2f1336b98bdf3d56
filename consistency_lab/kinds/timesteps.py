"""The audit of timestep samplers: what they draw over a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from consistency_lab.kinds.base import Drawing, Kind, Section, Table
from consistency_lab.kinds.numbers import number, records
from consistency_lab.plots.timesteps import audit, audit_frame


class Timesteps(Kind):
    place = 100

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "audit",
            audit(ds),
            audit_frame(ds),
            "Density of timesteps of each sampler over a run, and how far it is from uniform.",
            "Left: mean over the run. Right: total variation from uniform and the share of a batch that is left once it is weighted back.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(audit_frame(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        rows = [
            (str(name), number(float(part["run_total_variation"])), number(float(part["effective_share"].mean())))
            for name in ds["sampler"].values
            for part in [ds.sel(sampler=name)]
        ]
        table = Table(("sampler", "total variation of the run's mean", "effective share, mean"), rows)
        return Section("What do timestep samplers draw?", [*self.figures(ds), table])
