"""Every figure of a result, with the data behind it: what is saved beside a report."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.plots import (
    connectivity,
    curvature,
    definitions,
    frames,
    gallery,
    landscapes,
    probe_frames,
    probes,
    race,
    reading,
    similarity,
    structure,
    surface,
    timesteps,
    training,
)
from consistency_lab.probes.profiles import difficulty_correlations
from consistency_lab.store.shapes import whole


def figures_of(ds: xr.Dataset) -> Iterator[tuple[str, Figure, pd.DataFrame]]:
    """Yield (name, figure, frame) for a result of any kind; nothing for a kind that has no figure."""
    ds = whole(ds)
    kind = ds.attrs["kind"]
    if kind == "comparison":
        metric = reading.headline_metric(ds)
        yield "gallery", gallery.gallery(ds), frames.overview(ds, metric)
        yield f"scores-{metric}", similarity.scores(ds, metric), frames.overview(ds, metric)
        yield f"heatmap-{metric}", similarity.heatmap(ds, metric), frames.matches(ds, metric)
        for name in reading.names(ds, "metric"):
            yield f"curves-{name}", similarity.curves(ds, name), frames.curves(ds, name)
            yield f"distribution-{name}", similarity.distribution(ds, name), frames.distribution(ds, name)
    elif kind == "difficulty":
        yield "curves", probes.difficulty(ds), frames.difficulty(ds)
        if "profile" in ds:
            yield "definitions", definitions.definitions(ds), probe_frames.definitions(ds)
            yield "agreement", definitions.agreement(ds), difficulty_correlations(ds)
    elif kind == "structure":
        yield "levels", structure.structure(ds), probe_frames.structure(ds)
    elif kind == "connectivity":
        yield "paths", connectivity.connectivity(ds), probe_frames.connectivity(ds)
    elif kind == "landscape":
        yield "line", probes.landscape(ds), frames.landscape(ds)
        if "gradient_cosine" in ds:
            yield "gradients", landscapes.gradients(ds), landscapes.gradient_frame(ds)
    elif kind == "plane":
        frame = landscapes.plane_frame(ds)
        yield "plane", landscapes.plane(ds), frame
        yield "surface", surface.surface(ds), frame[frame["name"] == "mean"]
    elif kind == "curvature":
        yield "density", curvature.spectrum(ds), curvature.density_frame(ds)
        yield "numbers", curvature.by_level(ds), curvature.number_frame(ds)
    elif kind == "training":
        yield "loss", training.loss(ds), frames.training(ds)
    elif kind == "recipe":
        yield "density", training.recipe_density(ds), frames.recipe(ds)
    elif kind == "timesteps":
        yield "audit", timesteps.audit(ds), timesteps.audit_frame(ds)
    elif kind == "race":
        yield "curves", race.curves(ds), race.curves_frame(ds)
        yield "speedups", race.speedups(ds), race.speedups_frame(ds)
