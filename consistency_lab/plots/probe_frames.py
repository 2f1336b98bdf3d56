"""What the figures of definitions of difficulty, structure and connectivity draw, as tidy frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import as_columns, as_value, interval_names, interval_of
from consistency_lab.plots.reading import names, need
from consistency_lab.probes.profiles import with_void_marked


def _bounds(ds: xr.Dataset, name: str) -> dict[str, Any]:
    return as_value(interval_of(ds, name))


def definitions(ds: xr.Dataset) -> pd.DataFrame:
    """Columns definition, unit, t, log_snr, value, low, high: every definition of difficulty along t."""
    ds = with_void_marked(need(ds, "difficulty", *interval_names("profile")))
    parts = []
    for name in names(ds, "definition"):
        one = ds.sel(definition=name)
        columns = {"definition": name, "unit": str(one["definition_unit"].values), "t": ds["t"].values}
        parts.append(pd.DataFrame({**columns, "log_snr": ds["log_snr"].values, **_bounds(one, "profile")}))
    return pd.concat(parts, ignore_index=True)


def structure(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity, name, part, t, log_snr, value, low, high.

    Quantities: "fixed" and "correlation" (name is a model), "swap relative" and "swap nearer" (a model), "handoff relative" and "handoff
    nearer" (first > second model); part is empty for the last four.
    """
    ds = need(ds, "structure", *interval_names("fixed", "correlation", "swap_relative", "swap_nearer"))
    parts = []

    def add(quantity: str, name: str, part: str, bounds: dict[str, Any]) -> None:
        columns = {"quantity": quantity, "name": name, "part": part, "t": ds["t"].values}
        parts.append(pd.DataFrame({**columns, "log_snr": ds["log_snr"].values, **bounds}))

    for model in names(ds, "model"):
        for part in names(ds, "part"):
            for quantity in ("fixed", "correlation"):
                add(quantity, model, part, _bounds(ds.sel(model=model, part=part), quantity))
    for kind, dim in (("swap", "model"), ("handoff", "handoff")):
        for name in names(ds, dim):
            for quantity in ("relative", "nearer"):
                add(f"{kind} {quantity}", name, "", _bounds(ds.sel({dim: name}), f"{kind}_{quantity}"))
    return pd.concat(parts, ignore_index=True)


def parts(ds: xr.Dataset) -> pd.DataFrame:
    """What the parts of an image are: columns part, of ("image", "band" or "components"), words ("band 0 to 0.125")."""
    rows = []
    for i, name in enumerate(names(ds, "part")):
        if "part_of" in ds.coords:
            of, *ends = str(ds["part_of"].values[i]), float(ds["part_first"][i]), float(ds["part_last"][i])
        else:
            of, *ends = older_part(name)
        rows.append((name, of, "whole image" if of == "image" else f"{of} {ends[0]:g} to {ends[1]:g}"))
    return pd.DataFrame(rows, columns=["part", "of", "words"])


def older_part(name: str) -> tuple[str, float, float]:
    """What the name of a part says ("band-0-0.125"), for results and rows of versions that said it nowhere else."""
    if name == "mse":
        return "image", np.nan, np.nan
    kind, first, last = name.split("-")
    return {"pc": "components"}.get(kind, kind), float(first), float(last)


def switches(ds: xr.Dataset) -> pd.DataFrame:
    """Where half is fixed, and where the image changes sides: columns what, part (empty for the latter), name, t, t_low, t_high."""
    ds = need(ds, "structure", *interval_names("fixed_t", "swap_switch_t"))
    rows = []
    for i, model in enumerate(names(ds, "model")):
        for j, part in enumerate(names(ds, "part")):
            half = as_columns("t", interval_of(ds.isel(model=i, part=j), "fixed_t"))
            rows.append({"what": f"half of {part} known", "part": part, "name": model, **half})
    for what, kind, dim in (("noise swapped", "swap", "model"), ("handed over", "handoff", "handoff")):
        for i, name in enumerate(names(ds, dim)):
            switch = as_columns("t", interval_of(ds.isel({dim: i}), f"{kind}_switch_t"))
            rows.append({"what": what, "part": "", "name": name, **switch})
    return pd.DataFrame(rows, columns=["what", "part", "name", *interval_names("t")])


def connectivity(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("loss" along a path, "barrier" by t), path, position, t, value, low, high; t is empty for losses over all t."""
    ds = need(ds, "connectivity", *interval_names("loss", "barrier", "barrier_by_t"))
    parts = []
    for path in names(ds, "path"):
        one = ds.sel(path=path)
        loss = {"quantity": "loss", "path": path, "position": ds["position"].values, "t": np.nan}
        parts.append(pd.DataFrame({**loss, **_bounds(one, "loss")}))
        by_t = {"quantity": "barrier", "path": path, "position": np.nan, "t": ds["t"].values}
        parts.append(pd.DataFrame({**by_t, **_bounds(one, "barrier_by_t")}))
    return pd.concat(parts, ignore_index=True)


def barriers(ds: xr.Dataset) -> pd.DataFrame:
    """Columns path, value, low, high: the barrier of each path over all t."""
    ds = need(ds, "connectivity", *interval_names("barrier"))
    return pd.DataFrame({"path": names(ds, "path"), **_bounds(ds, "barrier")})
