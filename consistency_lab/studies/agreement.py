"""Does a result that was measured again agree with the first, number by number, and in what were the two made differently?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from consistency_lab.intervals import interval_names, is_bound

ROUNDING = 1e-5  # of a variable's largest number: what float32 arithmetic in another order leaves
EQUAL, ROUNDED, WITHIN, DIFFERS = "equal", "equal to rounding", "within the interval", "differs"
_PICTURES = {"row", "column"}  # dimensions of what is shown and not quoted


@dataclass(frozen=True)
class Agreement:
    """How a variable of the first result compares with the second.

    Attributes:
        name: of the variable.
        status: `EQUAL` to the bit, `ROUNDED`, `WITHIN` its 95 % interval (of a number per sample: the mean over samples, in the interval of
            that mean), or `DIFFERS`: the worst of its numbers.
        numbers, equal: how many there are, and how many of them are equal to the bit.
        largest: difference, NaN where nothing can be subtracted.
        first, second: the number, if it is one.
        note: why nothing could be compared; empty otherwise.
    """

    name: str
    status: str
    numbers: int
    equal: int
    largest: float
    first: float | None = None
    second: float | None = None
    note: str = ""


def agreements(first: xr.Dataset, second: xr.Dataset) -> list[Agreement]:
    """Every variable of numbers of ``first``, and the coordinates that are numbers; ends of intervals and pictures are left out."""
    return [_of(str(name), first, second) for name in (*first.coords, *first.data_vars) if _quoted(str(name), first)]


def _quoted(name: str, ds: xr.Dataset) -> bool:
    variable = ds[name]
    end = is_bound(name) and any(name in interval_names(str(other))[1:] for other in ds.variables)
    return variable.dtype.kind in "biuf" and not end and not _PICTURES & set(variable.dims)


def _of(name: str, first: xr.Dataset, second: xr.Dataset) -> Agreement:
    old = first[name]
    if name not in second.variables:
        return Agreement(name, DIFFERS, old.size, 0, np.nan, note="it was not measured again")
    new = second[name]
    if old.dims != new.dims or old.shape != new.shape:
        said = f"{_sizes(new)} instead of {_sizes(old)}"
        return Agreement(name, DIFFERS, old.size, 0, np.nan, note=said)
    a, b = np.asarray(old.values, dtype=np.float64), np.asarray(new.values, dtype=np.float64)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(equal, 0.0, np.abs(b - a))
    finite = np.abs(a[np.isfinite(a)])
    rounded = equal | (gap <= ROUNDING * finite.max(initial=0.0) if old.dtype.kind == "f" else False)
    status = EQUAL if equal.all() else ROUNDED if rounded.all() else DIFFERS
    if status == DIFFERS and (rounded | _within(name, first, a, b)).all():
        status = WITHIN
    one = (float(a), float(b)) if a.ndim == 0 else (None, None)
    return Agreement(name, status, a.size, int(equal.sum()), float(gap.max(initial=0.0)), *one)


def _within(name: str, first: xr.Dataset, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which numbers of the second lie in the interval of the first, or have means over samples that do."""
    old = first[name]
    ends = interval_names(name)[1:]
    if all(end in first and first[end].dims == old.dims for end in ends):
        low, high = (first[end].values for end in ends)
        return (low <= a) & (a <= high) & (low <= b) & (b <= high)  # an interval without its own number says nothing
    n = first.sizes.get("sample", 0)
    if "sample" not in old.dims or old.dtype.kind != "f" or n < 2 or not np.isfinite(a).all():
        return np.zeros(a.shape, dtype=bool)
    axis = old.dims.index("sample")
    half = stats.t.ppf(0.975, n - 1) * a.std(axis, ddof=1, keepdims=True) / np.sqrt(n)
    return np.broadcast_to(np.abs(b.mean(axis, keepdims=True) - a.mean(axis, keepdims=True)) <= half, a.shape)


def _sizes(variable: xr.DataArray) -> str:
    return " x ".join(f"{size} {dim}" for dim, size in variable.sizes.items()) or "one number"


def made_differently(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two provenances differ of all that numbers depend on beside what was asked: versions, device, threads, data; a line each."""
    then, now = (facts.get("versions") or {} for facts in (first, second))
    said = [
        f"version of {name}: {then.get(name)} then, {now.get(name)} now"
        for name in dict.fromkeys((*then, *now))
        if then.get(name) != now.get(name) and name in then
    ]
    for key in ("numerics_version", "measures_version", "git_commit", "platform", "device", "accelerator", "threads"):
        if first.get(key) != second.get(key):
            said.append(f"{key.replace('_', ' ')}: {first.get(key)} then, {second.get(key)} now")
    before, after = (dict(_prints(facts)) for facts in (first, second))
    for name in before:
        if before[name] != after.get(name):
            said.append(f"data {name!r}: fingerprint {before[name][:12]} then, {str(after.get(name))[:12]} now")
    return said


def _prints(facts: Any) -> list[tuple[str, str]]:
    """Name and fingerprint of every image set that a provenance names."""
    if isinstance(facts, Mapping):
        own = [(str(facts["name"]), str(facts["fingerprint"]))] if {"name", "fingerprint"} <= set(facts) else []
        return own + [pair for value in facts.values() for pair in _prints(value)]
    return [pair for value in facts for pair in _prints(value)] if isinstance(facts, list) else []
