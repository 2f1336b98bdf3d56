"""Results of earlier versions, brought into the form of this one when they are read.

Intervals once had several names, and the single numbers of probes were attributes. Nothing is computed: names change, numbers move.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.intervals import interval_names

# By kind: names of variables before and now.
RENAMED: dict[str, dict[str, str]] = {
    "comparison": {"family_low": "family_score_low", "family_high": "family_score_high"},
    "frozen comparison": {"family_low": "family_score_low", "family_high": "family_score_high"},
    "difficulty": {"error_low": "error_mean_low", "error_high": "error_mean_high"},
    "quality": {"low": "value_low", "high": "value_high"},
}
_GRADIENTS = ("predictiveness", "lipschitz", "relative_lipschitz", "gradient_rms")
_LINE = ("curvature", "relative_curvature", "roughness", "barrier", "relative_barrier", *_GRADIENTS)
_PLANE = ("curvature_x", "curvature_y", "relative_curvature_x", "relative_curvature_y", "roughness")
# By kind: attributes that are variables without dimensions now.
MOVED: dict[str, tuple[str, ...]] = {
    "landscape": (*interval_names(*_LINE), "direction_norm", "roughness_span", "predictiveness_distance"),
    "plane": (*interval_names(*_PLANE), "direction_norm", "roughness_span", "axes_cosine"),
    "curvature": ("parameters",),
    "connectivity": ("weight_distance", "aligned_weight_distance"),
}

_PEAK = dict(zip(("peak_from", "peak_to"), interval_names("peak_t")[1:], strict=True))


def migrated(ds: xr.Dataset) -> xr.Dataset:
    """The result with the names of this version; itself where there is nothing to change.

    What the result says that it held (``attrs["shape"]``, see `store.shapes`) is told the new names too.
    """
    kind = str(ds.attrs.get("kind"))
    renamed = RENAMED.get(kind, {})
    moved = {name: ds.attrs[name] for name in MOVED.get(kind, ()) if _is_number(ds.attrs.get(name)) and name not in ds}
    shape = _shape(ds.attrs.get("shape"))
    old = set(renamed) & (set(map(str, ds.variables)) | set(shape["dims"] if shape else ()))
    if not old and not moved:
        return ds
    ds = ds.rename({name: renamed[name] for name in old if name in ds.variables}).assign(moved)
    ds.attrs = {name: value for name, value in ds.attrs.items() if name not in moved}
    if shape:
        dims = {renamed.get(name, name): own for name, own in shape["dims"].items()}
        ds.attrs["shape"] = json.dumps({**shape, "dims": dims | {name: [] for name in moved}})
    return ds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _shape(text: Any) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("dims"), dict) else None


def migrated_values(values: Any, holder: str = "") -> Any:
    """The values of a row of a study, with all that is nested in them, by the names of this version."""
    if isinstance(values, list):
        return [migrated_values(each, holder) for each in values]
    if not isinstance(values, dict):
        return values
    return {_current(name, values, holder): migrated_values(inner, name) for name, inner in values.items()}


def _current(name: str, beside: Mapping[str, Any], holder: str) -> str:
    """The name of a value: bounds that were not named after their estimate are."""
    if name in _PEAK:
        return _PEAK[name]
    for end, bound in zip(("low", "high"), interval_names("")[1:], strict=True):
        if name == end and ("rho" in beside or holder.endswith("_along_t")):
            return f"{'rho' if 'rho' in beside else 'score'}{bound}"
        stem = name.removesuffix(bound)
        if stem != name and stem not in beside:
            estimate = next((x for x in (f"{stem}_score", f"{stem}_below") if x in beside), stem)
            return f"{estimate}{bound}"
    return name
