"""What of a result a figure has a place for. Tables, files and words have all of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

LONGEST = 32  # letters of a model's name; two of them and " | " fit beside an axis
# Dimensions whose entries carry names that users gave, and how long these may be. A contestant's says its settings, in a legend's width.
NAMED = {"model": LONGEST, "corner": LONGEST, "contestant": 64, "sampler": 64}
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
    names = {str(argument.attrs[key]): LONGEST for key in SAYING if key in argument.attrs}
    for dim, most in NAMED.items():
        if dim in argument.coords:
            names |= {str(name): most for name in argument[dim].values.ravel()}
    # The longest first: one name may begin with another.
    long = sorted((name for name, most in names.items() if len(name) > most), key=lambda name: (-len(name), name))
    if not long:
        return argument
    heads = {name: f"{name[: names[name] - 9]}…{name[-8:]}" for name in long}
    alike = list(heads.values())
    short = {n: s if alike.count(s) == 1 else f"{s[:-4]}…{i}" for i, (n, s) in enumerate(heads.items(), start=1)}

    anywhere = re.compile("|".join(map(re.escape, long)))

    def shown(text: Any) -> str:
        return anywhere.sub(lambda found: short[found.group()], str(text))

    coords = {
        name: (values.dims, [shown(text) for text in values.values])
        for name, values in argument.coords.items()
        if values.dtype.kind in "UO" and len(values.dims) == 1
    }
    attrs = {key: shown(value) for key, value in argument.attrs.items() if isinstance(value, str) and key != "shape"}
    return argument.assign_coords(coords).assign_attrs(attrs)
