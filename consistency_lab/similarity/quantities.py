"""What a metric of a comparison is: its direction, unit and note, and whether it is scored. The result carries it, by metric.

Nothing is to be known of a metric by its name: a user's PSNR under another name is turned round like ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.metrics.base import Distance


def metric_coordinates(distances: Sequence[Distance]) -> dict[str, Any]:
    """The coordinate ``metric`` and those along it: ``better`` ("lower" or "higher" is more alike), ``scored`` (1 or 0; netCDF has no
    booleans), ``unit`` and ``note``.
    """
    return {
        "metric": [distance.name for distance in distances],
        "better": ("metric", [distance.better for distance in distances]),
        "scored": ("metric", np.array([distance.scored for distance in distances], dtype=np.int8)),
        "unit": ("metric", [distance.unit for distance in distances]),
        "note": ("metric", [distance.note for distance in distances]),
    }


def higher_is_alike(result: xr.Dataset, metric: str) -> bool:
    """Whether more of this metric is more alike."""
    return str(_of(result, metric, "better")) == "higher"


def is_scored(result: xr.Dataset, metric: str) -> bool:
    """Whether 1 - distance / null of this metric is a consistency score; others are shown but never scored."""
    return bool(_of(result, metric, "scored"))


def unit_of(result: xr.Dataset, metric: str) -> str:
    """The unit of its values, in words."""
    return str(_of(result, metric, "unit"))


def note_of(result: xr.Dataset, metric: str) -> str:
    """What else a reader of its values must know; empty if nothing."""
    return str(_of(result, metric, "note"))


def _of(result: xr.Dataset, metric: str, fact: str) -> Any:
    if fact in result.coords:
        return result[fact].sel(metric=metric).item()
    # Results of versions without these coordinates: PSNR was the only metric that was not a distance.
    older = {
        "better": "higher" if metric == "psnr" else "lower",
        "scored": metric != "psnr",
        "unit": result.attrs.get(f"units_{metric}", "units not recorded"),
        "note": result.attrs.get(f"note_{metric}", ""),
    }
    return older[fact]
