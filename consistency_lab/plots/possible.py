"""What a quantity can be: an interval that reaches beyond it is drawn back when it is shown.

A jackknife or t interval is symmetric and knows no bound: the band of a cosine may reach to -1.95. Where the quantity cannot be, the truth
is not either, so drawing an end back leaves unchanged whether the interval holds it. Results keep what was computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.intervals import Interval, estimates, interval_names

_POSITIVE, _SHARE, _SIGNED = (0.0, np.inf), (0.0, 1.0), (-1.0, 1.0)
_AT_MOST_ONE = (-np.inf, 1.0)
# By kind of result: its bounded variables.
_BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "comparison": {"spread": _POSITIVE},
    "difficulty": dict.fromkeys(("error_mean", "noise_scale"), _POSITIVE),
    "landscape": {
        **dict.fromkeys(
            ("loss", "loss_by_t", "barrier", "relative_barrier", "gradient_change", "gradient_rms"), _POSITIVE
        ),
        **dict.fromkeys(("lipschitz", "relative_lipschitz", "roughness", "roughness_on"), _POSITIVE),
        **dict.fromkeys(("gradient_cosine", "predictiveness", "predictiveness_at"), _SIGNED),
    },
    "plane": dict.fromkeys(("loss", "loss_by_t", "corner_loss", "roughness"), _POSITIVE),
    "curvature": {"loss": _POSITIVE},
    "connectivity": dict.fromkeys(("loss", "mean_loss", "barrier", "barrier_by_t"), _POSITIVE),
    "frozen comparison": {"along_distance": _POSITIVE},
    "structure": {
        **dict.fromkeys(("fixed_t", "handoff_switch_t", "swap_switch_t", "handoff_relative", "swap_relative"), _SHARE),
        **dict.fromkeys(("handoff_nearer", "swap_nearer"), _SHARE),
        "fixed": _AT_MOST_ONE,
        "correlation": _SIGNED,
    },
}
_ERRORS = ("eps error", "x0 error", "v error")  # definitions of difficulty that are means of squares


def drawn_back(interval: Iterable[Any], low: Any = -np.inf, high: Any = np.inf) -> Interval:
    """The interval of a quantity from ``low`` to ``high``; one whose estimate lies outside, as an unbiased one may, is left alone."""
    estimate, *ends = (np.asarray(part, dtype=float) for part in interval)
    inside = (estimate >= low) & (estimate <= high)
    return Interval(estimate, *(np.where(inside, np.clip(end, low, high), end) for end in ends))


def above_zero(interval: Iterable[Any]) -> Interval:
    """The interval of a distance, a squared error or a loss."""
    return drawn_back(interval, *_POSITIVE)


def possible(ds: xr.Dataset) -> xr.Dataset:
    """The result with every interval within what its quantity can be; the same object where all are."""
    changed: dict[str, xr.DataArray] = {}
    for name in estimates(ds.data_vars):
        bounds = _bounds(ds, name)
        if all(np.ndim(bound) == 0 and np.isinf(bound) for bound in bounds):
            continue
        low, high = (b.broadcast_like(ds[name]).values if isinstance(b, xr.DataArray) else b for b in bounds)
        _, *ends = interval_names(name)
        back = drawn_back((ds[name].values, *(ds[end].values for end in ends)), low, high)
        for end, values in zip(ends, back[1:], strict=True):
            if not np.array_equal(values, ds[end].values, equal_nan=True):
                changed[end] = ds[end].copy(data=values)
    return ds.assign(changed) if changed else ds


def _bounds(ds: xr.Dataset, name: str) -> tuple[Any, Any]:
    """What a variable can be: numbers, or arrays along a dimension of it."""
    kind = str(ds.attrs.get("kind"))
    if (kind == "difficulty" and name == "profile") or (kind == "comparison" and name == "ceiling_along"):
        return _by_entry(ds, name)
    if kind == "curvature" and name in ("eigenvalue", "trace") and "operator" in ds.coords:
        low = np.where(ds["operator"].values == "gauss_newton", 0.0, -np.inf)  # positive semidefinite
        return xr.DataArray(np.atleast_1d(low), {"operator": ds["operator"].values}, ("operator",)), np.inf
    if kind in _BOUNDS and name in _BOUNDS[kind]:
        return _BOUNDS[kind][name]
    return _AT_MOST_ONE if name.endswith("score") and kind != "gate" else (-np.inf, np.inf)


def _by_entry(ds: xr.Dataset, name: str) -> tuple[xr.DataArray, float]:
    """Zero for definitions of difficulty that are errors, and for metrics that are scored, which are distances."""
    dim = "definition" if name == "profile" else "metric"
    bounded = np.isin(ds[dim].values, _ERRORS) if dim == "definition" else _scored(ds)
    return xr.DataArray(np.where(bounded, 0.0, -np.inf), {dim: ds[dim].values}, (dim,)), np.inf


def _scored(ds: xr.Dataset) -> Any:
    return ds["scored"].values.astype(bool) if "scored" in ds.coords else ds["metric"].values != "psnr"
