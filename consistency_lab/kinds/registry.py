"""Which object speaks for which kind of result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.choices import Registry
from consistency_lab.errors import unknown_name
from consistency_lab.kinds.base import Kind
from consistency_lab.kinds.comparison import Comparison
from consistency_lab.kinds.connectivity import Connectivity
from consistency_lab.kinds.copies import Reproducibility
from consistency_lab.kinds.difficulty import Difficulty
from consistency_lab.kinds.frozen import Frozen
from consistency_lab.kinds.gate import Gate
from consistency_lab.kinds.landscapes import Curvature, Landscape, Plane
from consistency_lab.kinds.layers import Layers
from consistency_lab.kinds.prediction import Prediction
from consistency_lab.kinds.quality import Quality
from consistency_lab.kinds.snapshots import Snapshots
from consistency_lab.kinds.structure import Structure
from consistency_lab.kinds.timesteps import Timesteps
from consistency_lab.kinds.training import Recipe, Training
from consistency_lab.plots.reading import shown

KINDS: Registry[Kind] = Registry(
    "kind of result",
    {
        "comparison": Comparison,
        "gate": Gate,
        "reproducibility": Reproducibility,
        "frozen comparison": Frozen,
        "prediction": Prediction,
        "quality": Quality,
        "difficulty": Difficulty,
        "structure": Structure,
        "landscape": Landscape,
        "plane": Plane,
        "curvature": Curvature,
        "connectivity": Connectivity,
        "representations": Layers,
        "snapshots": Snapshots,
        "training": Training,
        "recipe": Recipe,
        "timesteps": Timesteps,
    },
)
# Packages name their kinds under this group in their pyproject.toml: [project.entry-points."consistency_lab.kinds"], kind = "module:Class".
GROUP = "consistency_lab.kinds"


def kind_of(ds: xr.Dataset) -> Kind:
    """What speaks for a result: what is registered for its kind, here or by an installed package; else `Kind` itself.

    Raises:
        UserError: a kind that nobody registered, of a dataset without numbers.
    """
    kind = str(ds.attrs["kind"])
    if kind in KINDS.names():
        return KINDS.builder(kind)()
    if found := _installed(kind):
        return found()
    if not any(variable.dtype.kind in "fiub" for variable in ds.data_vars.values()):
        raise unknown_name("kind of result", kind, KINDS.names())
    return Kind()


@cache
def _installed(kind: str) -> Callable[[], Kind] | None:
    """What an installed package names for a kind; None where none does, or where it cannot be used (a warning says why)."""
    for found in entry_points(group=GROUP, name=kind):
        try:
            return found.load()
        except Exception as error:  # somebody else's package, and the result can be shown without it
            warnings.warn(f"{found.value}, named for results of kind {kind!r}, cannot be used: {error}", stacklevel=3)
    return None


def figures_of(ds: xr.Dataset) -> Iterator[tuple[str, Figure, pd.DataFrame]]:
    """(name, figure, frame) of every figure of a result: what is saved beside a report."""
    ds = shown(ds)
    for each in kind_of(ds).figures(ds):
        yield each.name, each.figure, each.frame
