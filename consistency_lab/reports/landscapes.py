"""From landscapes, planes and spectra to what the page's template needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.intervals import estimates, interval_of
from consistency_lab.plots import curvature as spectra
from consistency_lab.plots import frames, landscapes, probes, reading
from consistency_lab.plots.surface import surface
from consistency_lab.reports.findings import made
from consistency_lab.reports.numbers import number, with_interval
from consistency_lab.reports.svg import Picture, picture

LANDSCAPE_NUMBERS = {
    "curvature": "curvature",
    "relative_curvature": "curvature over loss",
    "roughness": "roughness",
    "barrier": "barrier",
    "relative_barrier": "barrier over loss",
    "predictiveness": "gradient predictiveness",
    "relative_lipschitz": "Lipschitz estimate over loss",
}
PLANE_NUMBERS = {
    "relative_curvature_x": "curvature over loss, first axis",
    "relative_curvature_y": "curvature over loss, second axis",
    "roughness": "roughness",
}


def landscape(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """The loss along one line in weight space."""
    path = str(ds.attrs.get("path", "a line in weight space"))
    between = reading.is_between(ds)
    figure = picture(
        probes.landscape(ds),
        f"{key}-line",
        f"Loss along {path}, over all timesteps and by timestep.",
        "One frozen batch of images, times and noise for every position; the band is a 95 % interval over images.",
        frames.landscape(ds),
    )
    more = []
    if "gradient_cosine" in ds:
        caption = (
            "How far the gradient at the model foretells the gradient beside it. Bands: 95 % intervals over images."
        )
        alt = f"Cosine between the gradients along {path} and the model's, and their change."
        more = [picture(landscapes.gradients(ds), f"{key}-gradients", alt, caption, landscapes.gradient_frame(ds))]
    numbers = _numbers(ds, LANDSCAPE_NUMBERS, {} if between else {"barrier": "a barrier needs two models"})
    return _landscape(ds, key, path, [figure, *more], numbers)


def plane(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """The loss on one plane in weight space."""
    path = str(ds.attrs.get("path", "a plane in weight space"))
    figure = picture(
        landscapes.plane(ds),
        f"{key}-plane",
        f"Contours of the loss over the loss at the model on a plane, {path}.",
        "One frozen batch for every point; the loss is divided by that at the model, for each timestep by itself.",
        landscapes.plane_frame(ds),
    )
    table = landscapes.plane_frame(ds)
    raised = picture(
        surface(ds),
        f"{key}-surface",
        f"Surface of the loss over the loss at the model on a plane, {path}.",
        "The contours of all timesteps as a surface, in the same shades; white dots are models, each on its stem.",
        table[table["name"] == "mean"],
    )
    return _landscape(ds, key, path, [figure, raised], _numbers(ds, PLANE_NUMBERS, {}))


def _landscape(
    ds: xr.Dataset, key: str, path: str, pictures: list[Picture], numbers: list[tuple[str, str]]
) -> dict[str, Any]:
    """The section of a line or plane."""
    intervals = bool({"curvature", "curvature_x"} & set(estimates(ds)))
    return {
        "kind": "landscape",
        "key": key,
        "path": path,
        "model": ds.attrs.get("model", ""),
        "pictures": pictures,
        "numbers": numbers,
        "intervals": intervals,
        **made(ds),
    }


def _numbers(ds: xr.Dataset, names: Mapping[str, str], why: dict[str, str]) -> list[tuple[str, str]]:
    """Numbers with their intervals, or why they are undefined."""
    found = []
    for name, title in names.items():
        if name in ds:
            value, low, high = map(float, interval_of(ds, name))
            reason = why.get(name.removeprefix("relative_")) or "the line is too short or the loss not finite"
            text = with_interval(value, low, high) if np.isfinite(low) else number(value)
            found += _at_other_reaches(ds, name, title)
            found.append((title + _reach(ds, name), text if np.isfinite(value) else f"undefined: {reason}"))
    return found


def _reach(ds: xr.Dataset, name: str) -> str:
    """How far from the model a number was taken that depends on it; nothing for the others."""
    if name not in landscapes.REACHES or not np.isfinite(reach := landscapes.reach_of(ds, name)):
        return ""
    said = landscapes.REACHES[name][0] in ds
    return f" on ±{reach:.2g}{'' if said else ' (an older result: on this span alone)'}"


def _at_other_reaches(ds: xr.Dataset, name: str, title: str) -> list[tuple[str, str]]:
    if name not in landscapes.REACHES:
        return []
    table = landscapes.reach_frame(ds)
    rows = table[(table["quantity"] == name) & (table["reach"] != landscapes.reach_of(ds, name))]
    return [
        (f"{title} on ±{row['reach']:.2g}", with_interval(row["value"], row["low"], row["high"]))
        for row in rows.to_dict("records")
    ]


def curvature(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """The spectrum of second derivatives."""
    numbers = spectra.number_frame(ds)
    model = reading.model_of(ds)
    density = picture(
        spectra.spectrum(ds),
        f"{key}-density",
        f"Density of the eigenvalues of the Hessian of {model}.",
        "Stochastic Lanczos quadrature; the band is one standard error over random vectors, each node a narrow bump.",
        spectra.density_frame(ds),
    )
    levels = picture(
        spectra.by_level(ds),
        f"{key}-numbers",
        f"Largest and smallest eigenvalue and trace of {model}, over all samples and by timestep.",
        "95 % intervals over images; those of eigenvalues hold to first order, for the eigenvector that was found.",
        numbers,
    )
    rows = []
    shown = numbers[(numbers["part"] == "all") & numbers["quantity"].isin(["top 1", "bottom 1", "trace"])]
    for row in shown.to_dict("records"):
        text = with_interval(row["value"], row["low"], row["high"])
        name = f"{row['operator'].replace('_', '-')}, {row['quantity']}"
        rows.append((name, text if row["converged"] else f"{text}, not converged"))
    return {"kind": "curvature", "key": key, "model": model, "pictures": [density, levels], "numbers": rows, **made(ds)}
