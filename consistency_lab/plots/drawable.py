"""What of a result a figure has a place for. Tables, files and words have all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

LONGEST = 32  # letters; two of them and " | " fit beside an axis
NAMED = ("model", "contestant", "sampler", "corner")  # dimensions whose entries carry names that users gave
SAYING = ("model", "first", "second")  # attributes that are one


def drawable(argument: Any) -> Any:
    """A result, or a list of results, with short names and with nothing infinite, which is undefined to an axis; anything else as it is."""
    if isinstance(argument, list | tuple) and argument and all(isinstance(each, xr.Dataset) for each in argument):
        return [drawable(each) for each in argument]
    return with_short_names(_finite(argument)) if isinstance(argument, xr.Dataset) else argument


def _finite(ds: xr.Dataset) -> xr.Dataset:
    infinite = [name for name, values in ds.data_vars.items() if values.dtype.kind == "f" and np.isinf(values).any()]
    return ds.assign({name: ds[name].where(~np.isinf(ds[name])) for name in infinite}) if infinite else ds


def with_short_names(argument: xr.Dataset) -> xr.Dataset:
    """The result with its long names shortened wherever they occur."""
    names = [str(name) for dim in NAMED if dim in argument.coords for name in argument[dim].values.ravel()]
    names += [str(argument.attrs[key]) for key in SAYING if key in argument.attrs]
    long = sorted({name for name in names if len(name) > LONGEST}, key=lambda name: (-len(name), name))
    if not long:
        return argument
    heads = {name: f"{name[: LONGEST - 9]}…{name[-8:]}" for name in long}
    alike = list(heads.values())
    short = {n: s if alike.count(s) == 1 else f"{s[:-4]}…{i}" for i, (n, s) in enumerate(heads.items(), start=1)}

    def shown(text: Any) -> str:
        said = str(text)
        for name, brief in short.items():
            said = said.replace(name, brief)
        return said

    coords = {
        name: (values.dims, [shown(text) for text in values.values])
        for name, values in argument.coords.items()
        if values.dtype.kind in "UO" and len(values.dims) == 1
    }
    attrs = {key: shown(value) for key, value in argument.attrs.items() if isinstance(value, str) and key != "shape"}
    return argument.assign_coords(coords).assign_attrs(attrs)
