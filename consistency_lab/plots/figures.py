"""Every figure of a result, with the data behind it: what is saved beside a report."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.plots import frames, gallery, probes, race, reading, similarity, timesteps, training


def figures_of(ds: xr.Dataset) -> Iterator[tuple[str, Figure, pd.DataFrame]]:
    """Yield (name, figure, frame) for a result of any kind; nothing for a kind that has no figure."""
    kind = ds.attrs.get("kind")
    if kind == "comparison":
        metric = reading.headline_metric(ds)
        yield "gallery", gallery.gallery(ds), frames.overview(ds, metric)
        yield f"scores-{metric}", similarity.scores(ds, metric), frames.overview(ds, metric)
        yield f"heatmap-{metric}", similarity.heatmap(ds, metric), frames.matrix(ds, metric)
        for name in reading.names(ds, "metric"):
            yield f"curves-{name}", similarity.curves(ds, name), frames.curves(ds, name)
            yield f"distribution-{name}", similarity.distribution(ds, name), frames.distribution(ds, name)
    elif kind == "difficulty":
        yield "curves", probes.difficulty(ds), frames.difficulty(ds)
    elif kind == "landscape":
        yield "line", probes.landscape(ds), frames.landscape(ds)
    elif kind == "training":
        yield "loss", training.loss(ds), frames.training(ds)
    elif kind == "recipe":
        yield "density", training.recipe_density(ds), frames.recipe(ds)
    elif kind == "timesteps":
        yield "audit", timesteps.audit(ds), timesteps.audit_frame(ds)
    elif kind == "race":
        yield "curves", race.curves(ds), race.curves_frame(ds)
        yield "speedups", race.speedups(ds), race.speedups_frame(ds)
