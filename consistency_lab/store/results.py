"""Results on disk: an `xarray.Dataset` as netCDF 3, its provenance as one JSON text, its numbers as a tidy frame.

netCDF 3 needs nothing but scipy and every tool reads it, but it lacks many types. What it lacks is stored as a wider
type that it has, marked, and made what it was when read: nothing is rounded.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import subprocess
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.choices import Choice
from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.inputs import check_file, check_fits
from consistency_lab.markup import spreadsheet_cell
from consistency_lab.store.atomic import as_path, atomic_write, is_file, unreadable
from consistency_lab.store.checksums import BLANK, CHANGED, sum_holds, write_summed
from consistency_lab.store.migration import migrated
from consistency_lab.store.shapes import shape_of
from consistency_lab.store.spec import MEASURES_VERSION, NUMERICS_VERSION

_MARK = "stored_from"
_SUM = "consistency_lab_checksum"  # an attribute of the file alone, the first: what it is found by lies behind nothing but dimensions
# Widest first choice; int64 takes the first that holds its values exactly.
_STORED_AS = {
    "bool": ("int8",),
    "uint8": ("int16",),
    "uint16": ("int32",),
    "uint32": ("int32", "float64"),
    "int64": ("int32", "float64"),
    "uint64": ("int32", "float64"),
    "float16": ("float32",),
}
# What a number may rest on, as pip names it: arithmetic, and whoever reads or makes images, features, paths and models of others.
_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "xarray",
    "scikit-learn",
    "pillow",
    "torchvision",
    "lpips",
    "torch-fidelity",
    "loss-landscapes",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
)


def save_result(ds: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a dataset, whole or not at all; `load_result` gives back the same values, types, names and attributes.

    Attributes are texts and numbers; anything nested belongs in the provenance (`with_provenance`).

    Args:
        ds: what `compare` or a probe returned, or any dataset of numbers and texts.
        path: the file; the folder is made where it is missing.

    Raises:
        StoreError: ``path`` cannot be written, or netCDF cannot hold an attribute, variable or dimension (named).
    """
    if not isinstance(ds, xr.Dataset):
        raise StoreError(
            f"a result is an xarray.Dataset, not a {type(ds).__name__}; make one of a variable with .to_dataset()."
        )
    for dimension, length in ds.sizes.items():
        if length == 0:  # to netCDF 3 that is a dimension that grows
            raise StoreError(f"the dimension {str(dimension)!r} of the result is empty; there is nothing to save.")
    stored = ds.copy()
    stored.attrs = {_SUM: BLANK} | {k: v for k, v in _plain_attributes(ds.attrs, "the result").items() if k != _SUM}
    for name, variable in ds.variables.items():
        stored[name] = _storable(variable, str(name))
    content = bytes(stored.to_netcdf(engine="scipy"))
    write_summed(path, content, content.index(BLANK.encode()))


def load_result(path: str | os.PathLike[str]) -> xr.Dataset:
    """A dataset that `save_result` wrote, in memory; one of an earlier version gets the names of this one (`store.migration`).

    Args:
        path: the ``.nc`` file.

    Raises:
        StoreError: the file is missing or cannot be read. DamagedError: it is truncated, or was changed after it was written.
    """
    path = as_path(path)
    check_file(path)
    if not is_file(path):
        raise StoreError(f"there is no result {path}; give the path of a .nc file.")
    try:
        check_fits(path.stat().st_size, path)
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if sum_holds(io.BytesIO(content), content) is False:
        raise DamagedError(f"{path} {CHANGED}; restore it from a copy, or compute it again.")
    try:
        # From memory, so that the file is closed. Nothing is to be guessed from attributes: `units: "seconds"` would
        # become a time, a fill value a NaN.
        options: dict[str, Any] = {"decode_times": False, "decode_timedelta": False, "mask_and_scale": False}
        if not content.startswith(b"CDF"):  # of netCDF 3: nothing that would be unpacked, or read by another library
            raise ValueError("no netCDF 3")
        # What the header declares is cut out of these bytes, so that it takes no more memory than they do.
        stored = xr.load_dataset(io.BytesIO(content), engine="scipy", **options)
        if not stored.attrs and not stored.variables:
            raise ValueError("zeros behind the magic number are a file of nothing to the format")
    except Exception as error:  # the reader fails on damaged bytes with whatever it trips over
        raise DamagedError(
            f"{path} is truncated or is not a netCDF result; restore it from a copy, or compute it again."
        ) from error
    stored.attrs = {key: _python(value) for key, value in stored.attrs.items() if key != _SUM}
    for name, variable in stored.variables.items():
        stored[name] = _restored(variable)
    stored.encoding = {}
    return migrated(stored)


def has_sum(path: Path) -> bool:
    """Whether a file that `load_result` has read carried a checksum, which it looked at."""
    return BLANK[:-32].encode() in path.read_bytes()


def with_provenance(ds: xr.Dataset, kind: str, *, choices: Sequence[str] | None = None, **facts: Any) -> xr.Dataset:
    """A copy that says what it is: ``attrs["kind"]``, and ``attrs["provenance"]``, facts and `environment()` as JSON.

    ``attrs["shape"]`` says what it holds, so that a part of it is known for one (`store.shapes.whole`).

    Args:
        ds: the numbers. kind: what they are; reports and notebooks show it as its `Kind` says.
        choices: the dimensions of which a part may take some entries. Along every other one scores, means or intervals were taken, and
            they are of all of it: a part is refused. None: any may be chosen.
        **facts: what made it, as JSON can hold it. A fact replaces an entry of the environment with the same name; say ``device`` where a
            GPU is present.

    Raises:
        StoreError: a fact is not JSON.
    """
    try:
        text = json.dumps({**environment(), **facts}, default=_jsonable)
    except TypeError as error:
        raise StoreError(
            f"the provenance cannot be written as JSON ({error}); give numbers, texts, lists and dicts."
        ) from None
    return ds.assign_attrs(kind=kind, provenance=text, shape=shape_of(ds, choices))


def provenance(ds: xr.Dataset) -> dict[str, Any]:
    """The facts that `with_provenance` recorded. Raises `StoreError` if there are none."""
    try:
        return dict(json.loads(ds.attrs["provenance"]))
    except (KeyError, TypeError, ValueError):
        raise StoreError(
            "this dataset does not say how it was made (no provenance); give a result of this package."
        ) from None


def environment() -> dict[str, Any]:
    """What a number may depend on besides its settings.

    ``versions`` of Python, this package and those that numbers rest on (None for one that is not installed; nothing is imported to tell),
    ``platform``, ``threads`` of torch, ``accelerator`` (the GPU's name or None),
    ``device`` ("cpu" where there is no GPU; None where there is one, since only the caller knows what it used),
    ``git_commit`` of the checkout that the package lies in (with "-dirty" if its files differ; None where it is installed
    elsewhere), ``numerics_version`` and ``measures_version`` (see `store.spec`).
    """
    import torch  # here, so that reading a result does not wait for it

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {
            "python": platform.python_version(),
            "consistency_lab": _version("consistency-lab"),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "device": "cpu" if accelerator is None else None,
        "git_commit": _git_commit(),
        "numerics_version": NUMERICS_VERSION,
        "measures_version": MEASURES_VERSION,
    }


def to_frame(ds: xr.Dataset, *names: str) -> pd.DataFrame:
    """A tidy frame: one row per cell, a column per dimension, per coordinate along them and per variable.

    Args:
        names: variables to take; by default the dataset's first one and all that have the same dimensions.

    Raises:
        StoreError: the dataset has no such variable.
    """
    variables = list(ds.data_vars)
    for name in names:
        if name not in variables:
            raise StoreError(f"the result has no variable {name!r}; it has {', '.join(map(str, variables)) or 'none'}.")
    if not variables:
        raise StoreError("the result has no variables, so there is nothing to tabulate.")
    first = ds[variables[0]].dims
    chosen: list[Hashable] = list(names) or [name for name in variables if ds[name].dims == first]
    order = list(dict.fromkeys(dimension for name in chosen for dimension in ds[name].dims))
    if not order:
        return pd.DataFrame([{name: ds[name].item() for name in chosen}])
    return ds[chosen].to_dataframe(dim_order=order).reset_index()


def save_frame(table: xr.Dataset | pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a frame, or `to_frame` of a result, as CSV without loss. Raises `StoreError` if it cannot be written."""
    atomic_write(path, csv_text(to_frame(table) if isinstance(table, xr.Dataset) else table))


def csv_text(frame: pd.DataFrame, number: str | None = None) -> str:
    """A frame as CSV in which no text is a formula to a spreadsheet; an index that has a name is its first column.

    Args:
        number: format of floats, such as ``"%.6g"``; by default all their digits.
    """
    shown = frame.rename(columns=_cell).reset_index() if frame.index.name is not None else frame.rename(columns=_cell)
    texts = [name for name, kind in shown.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return shown.assign(**{str(name): shown[name].map(_cell) for name in texts}).to_csv(
        index=False, float_format=number
    )


def _cell(value: Any) -> Any:
    return spreadsheet_cell(value) if isinstance(value, str) else value


def _storable(variable: xr.Variable, name: str) -> xr.Variable:
    values, attributes = np.asarray(variable.values), _plain_attributes(variable.attrs, f"the variable {name!r}")
    kind = values.dtype.name
    if values.dtype.kind in "OUT":
        if not all(isinstance(value, str) for value in values.flat):
            raise StoreError(f"the variable {name!r} holds Python objects; make it numbers or texts.")
        values = np.array([_encodable(str(text)) for text in values.flat], dtype=str).reshape(values.shape)
    elif kind in _STORED_AS:
        exact = (wide for wide in _STORED_AS[kind] if _fits(values, wide))
        wide = next(exact, None)
        if wide is None:
            raise StoreError(f"the variable {name!r} holds integers beyond 2**53; put them into the provenance.")
        values, attributes[_MARK] = values.astype(wide), kind
    elif values.dtype.kind not in "Sif":
        raise StoreError(
            f"the variable {name!r} has the type {values.dtype}, which netCDF lacks; make it numbers or texts."
        )
    # No fill value: xarray would add one to floats, and NaN is a value here.
    return xr.Variable(variable.dims, values, attributes, {"_FillValue": None})


def _restored(variable: xr.Variable) -> xr.Variable:
    attributes = {key: _python(value) for key, value in variable.attrs.items()}
    dtype = attributes.pop(_MARK, str if variable.dtype.kind in "OSUT" else variable.dtype.newbyteorder("="))
    return xr.Variable(variable.dims, variable.values.astype(dtype), attributes)


def _fits(values: np.ndarray, wide: str) -> bool:
    """Whether integers survive the way through the wider type; small types always do."""
    if values.dtype.kind not in "iu" or not values.size:
        return True
    limit = 2**53 if wide == "float64" else np.iinfo(wide).max
    return -limit <= int(values.min()) and int(values.max()) <= limit


def _plain_attributes(attributes: dict[Any, Any], where: str) -> dict[str, str | int | float]:
    found = {str(key): _python(value) for key, value in attributes.items()}
    plain = {key: _encodable(value) if isinstance(value, str) else value for key, value in found.items()}
    for key, value in plain.items():
        small = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
        if not (small or isinstance(value, str | float)):
            raise StoreError(
                f"the attribute {key!r} of {where} cannot be stored: write {type(value).__name__} as JSON text."
            )
    return plain


def _encodable(text: str) -> str:
    """Lone surrogates, such as a file name may hold, as backslash escapes: no file can hold them."""
    return text.encode(errors="backslashreplace").decode()


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Choice):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


@cache  # what has been imported stays what it is, and to read it takes milliseconds at every result
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the package's own checkout. An installed copy may lie in a checkout of something else, which does not track it."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> str | None:
    """What git says of the folder of this file; None where there is no git, or it refuses."""
    options: dict[str, Any] = {"cwd": Path(__file__).parent, "env": {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}}
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
