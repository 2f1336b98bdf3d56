"""Parts of results: made whole again, or refused in one sentence.

xarray cuts, averages and reorders datasets freely, and most of that leaves a result whose numbers no longer belong together: scores of 256
samples beside the distances of 128, pairs that count models which are gone. What a result held when it was made is written into it
(`shape_of`), so that whoever draws or tabulates one can ask for it `whole`.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.choices import printable
from consistency_lab.errors import UserError
from consistency_lab.store.migration import migrated

# What a part may choose among, of results of versions that did not write it into them.
_OLDER: dict[str, tuple[str, ...]] = {
    "comparison": ("metric", "t", "reference"),
    "difficulty": ("units", "definition", "reference"),
    "structure": ("model", "handoff", "part", "t"),
    "landscape": ("t",),
    "plane": ("t",),
    "curvature": ("operator", "part", "end", "rank"),
    "connectivity": ("path", "t"),
    "training": ("model",),
    "recipe": (),
    "timesteps": ("sampler",),
    "race": ("contestant", "target"),
}


def shape_of(ds: xr.Dataset, choices: Sequence[str] | None = None) -> str:
    """What a dataset holds, as JSON: ``sizes`` of its dimensions, ``dims`` of its variables, ``coords``, the names of its coordinates.

    ``choices`` are the dimensions that a part may choose among; it is left out where any may be chosen.
    """
    dims = {str(name): [str(dim) for dim in variable.dims] for name, variable in ds.variables.items()}
    sizes = {str(dim): length for dim, length in ds.sizes.items()}
    found: dict[str, Any] = {"sizes": sizes, "dims": dims, "coords": sorted(map(str, ds.coords))}
    return json.dumps(found if choices is None else {**found, "choices": sorted(choices)})


def whole(ds: object) -> xr.Dataset:
    """The result with every dimension that it had when it was made, in that order, and the names of this version.

    A dimension of which one entry was selected (``r.sel(metric="mse")``, ``r.isel(t=-1)``) comes back with a length of 1; a variable that
    was repeated along a foreign one (``xr.concat``) is taken once; a comparison's times are put in their order, noise first. Results of
    versions that wrote no shape are handed back as they are, unless they were cut.

    Raises:
        UserError: what is no result, and a part whose numbers do not belong together: fewer samples, models or pairs than its scores are
            of, a comparison without t = 0, a dimension that was averaged away or a coordinate that was dropped.
    """
    ds = migrated(_result(ds))
    kind = str(ds.attrs["kind"])
    shape = _recorded(ds)
    if shape is None:
        _refuse_cut(ds, kind)
    else:
        ds = _restored(ds, kind, shape["dims"])
        _check_coordinates(ds, kind, shape)
        _check_sizes(ds, kind, shape["sizes"], shape.get("choices", _OLDER.get(kind)))
    return _printable(_sound_comparison(ds) if kind == "comparison" else ds)


def lost_variables(ds: xr.Dataset) -> list[str]:
    """Variables that the result had when it was made and has no longer, for readers that need all; none where that is not known."""
    shape = _recorded(ds)
    return [] if shape is None else sorted(set(shape["dims"]) - set(map(str, ds.variables)))


def _result(ds: object) -> xr.Dataset:
    if isinstance(ds, xr.DataArray):
        raise UserError(f"this is one variable of a result ({ds.name!r}); give the result itself.")
    if not isinstance(ds, xr.Dataset):
        raise UserError(f"this needs a result, what compare or a probe returns, not a {type(ds).__name__}.")
    if not ds.attrs.get("kind"):
        raise UserError(
            "unknown kind of result '': most operations of xarray drop the attributes that say what a dataset is; give the result as it "
            "was returned, or keep them with xarray.set_options(keep_attrs=True)."
        )
    return ds


def _recorded(ds: xr.Dataset) -> dict[str, Any] | None:
    try:
        found = json.loads(ds.attrs["shape"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if isinstance(found, dict) and {"sizes", "dims", "coords"} <= set(found) else None


def _refuse_cut(ds: xr.Dataset, kind: str) -> None:
    """A result whose shape is not known has no coordinate without a dimension, unless one entry was selected."""
    for name, value in ds.coords.items():
        if not value.dims:
            one = value.item()
            raise UserError(
                f"this {kind} result was cut at one {name}; keep the dimension: "
                f"r.sel({name}=[{one!r}]), or drop the coordinate if it is none of the result's."
            )


def _restored(ds: xr.Dataset, kind: str, dims: Mapping[str, list[str]]) -> xr.Dataset:
    """The same variables with the dimensions that they had."""
    made: dict[Hashable, xr.Variable] = {}
    for name, variable in ds.variables.items():
        wanted = dims.get(str(name))
        if wanted is None or list(variable.dims) == wanted:
            made[name] = variable
            continue
        for dim in set(map(str, variable.dims)) - set(wanted):
            variable = _once(variable, str(name), dim, kind)
        lost = [dim for dim in wanted if dim not in variable.dims]
        for dim in lost:
            if dim not in ds.coords or ds[dim].dims:
                raise UserError(
                    f"{name!r} of this {kind} result has lost its dimension {dim!r}; give the result as it was made, or choose along "
                    f"{dim!r} with the dimension kept, for example r.isel({dim}=[0])."
                )
        made[name] = variable.set_dims({**dict.fromkeys(lost, 1), **variable.sizes}).transpose(*wanted)
    if all(made[name] is variable for name, variable in ds.variables.items()):
        return ds
    return xr.Dataset(
        {name: variable for name, variable in made.items() if name not in ds.coords},
        {name: variable for name, variable in made.items() if name in ds.coords},
        ds.attrs,
    )


def _once(variable: xr.Variable, name: str, dim: str, kind: str) -> xr.Variable:
    """What was repeated along a dimension that it does not have, taken once."""
    first = variable.isel({dim: 0})
    if not first.broadcast_equals(variable):
        raise UserError(
            f"{name!r} of this {kind} result varies along {dim!r}, which it does not have: results of different models or samples were put "
            "together; keep them apart."
        )
    return first


def _check_coordinates(ds: xr.Dataset, kind: str, shape: Mapping[str, Any]) -> None:
    for name in shape["coords"]:
        if name not in ds.coords and set(shape["dims"][name]) <= set(map(str, ds.dims)):
            raise UserError(f"this {kind} result has lost its coordinate {name!r}; give it as it was made.")


def _check_sizes(ds: xr.Dataset, kind: str, sizes: Mapping[str, int], choices: Sequence[str] | None) -> None:
    for dim, length in ds.sizes.items():
        made = sizes.get(str(dim), length)
        if length == 0:
            raise UserError(f"this {kind} result holds nothing along {str(dim)!r}; choose one entry or more.")
        if length != made and choices is not None and dim not in choices:
            again = {
                "sample": "make it again with that count",
                "model": "compare those models by themselves",
                "pair": "compare those two models by themselves",
            }
            raise UserError(
                f"the numbers of this {kind} result were taken over all {made} entries of {str(dim)!r} and it holds {length}, so they do "
                f"not belong together; give the whole result, or {again.get(str(dim), 'make it again so')}."
            )


def _printable(ds: xr.Dataset) -> xr.Dataset:
    """Names on one line each: a model may be called what its file was. The dataset itself where they are."""
    renamed = {}
    for name in ds.coords:
        values = ds.variables[name]  # ds.coords.items() makes a DataArray of each, ten times dearer; every figure asks
        if values.dtype.kind in "UO" and values.dims:
            names = values.values.tolist()
            shown = [printable(str(text)) for text in names]
            if shown != names:
                renamed[name] = (values.dims, shown)
    attrs = {key: printable(value) for key, value in ds.attrs.items() if isinstance(value, str)}
    changed = {key: value for key, value in attrs.items() if value != ds.attrs[key]}
    ds = ds.assign_coords(renamed) if renamed else ds
    return ds.assign_attrs(changed) if changed else ds


def _sound_comparison(ds: xr.Dataset) -> xr.Dataset:
    """Times from noise to data, samples in their order; pairs that mean the models they name."""
    for name, sign in (("t", -1), ("sample", 1)):
        if name in ds.indexes and not (np.diff(sign * ds.variables[name].values) > 0).all():
            if not ds.indexes[name].is_unique:
                raise UserError(
                    f"this comparison holds some entries of {name!r} twice; give the result as it was made."
                )
            ds = ds.isel({name: np.argsort(sign * ds.variables[name].values, kind="stable")})
    if "t" in ds.indexes and (end := float(ds.variables["t"].values[-1])) > 0:
        raise UserError(
            f"this comparison ends at t = {end:.3g}, and its headline, ceiling and images are of the end, t = 0; keep that "
            "time as well, for example r.isel(t=[0, -1])."
        )
    if {"model", "pair", "first", "second"} <= set(ds.coords):
        model, pair, *sides = (ds.variables[name].values.tolist() for name in ("model", "pair", "first", "second"))
        names, count = [str(name) for name in model], ds.sizes["model"]
        ends = zip(*sides, strict=True)
        named = [f"{names[a]} | {names[b]}" if max(a, b) < count else "" for a, b in ends]
        if named != [str(name) for name in pair] or len(named) != count * (count - 1) // 2:
            raise UserError(
                f"this comparison holds {count} models and pairs that are not all of theirs, so its scores are of others; give the whole "
                "result with its models in their order, or compare those models by themselves."
            )
    return ds
