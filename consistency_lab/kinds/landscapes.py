"""The loss around a model: along a line, on a plane, and its second derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import add_interval, estimates, interval_of
from consistency_lab.kinds.base import Drawing, Facts, Kind, Note, Part, Section
from consistency_lab.kinds.numbers import OVER_IMAGES, interval_text, number, records, single_numbers, with_interval
from consistency_lab.kinds.views import ALL, Control, View
from consistency_lab.plots import curvature as spectra
from consistency_lab.plots import frames, landscapes, probes, reading
from consistency_lab.plots.surface import surface

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


class Landscape(Kind):
    """The loss along one line in weight space."""

    place = 40

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        path = _path(ds, "a line in weight space")
        yield Drawing(
            "line",
            probes.landscape(ds),
            frames.landscape(ds),
            f"Loss along {path}, over all timesteps and by timestep.",
            "One frozen batch of images, times and noise for every position; the band is a 95 % interval over images.",
        )
        if "gradient_cosine" in ds:
            yield Drawing(
                "gradients",
                landscapes.gradients(ds),
                landscapes.gradient_frame(ds),
                f"Cosine between the gradients along {path} and the model's, and their change.",
                "How far the gradient at the model foretells the gradient beside it. Bands: 95 % intervals over images.",
            )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"numbers": single_numbers(ds)}

    def section(self, ds: xr.Dataset) -> Section:
        why = {} if reading.is_between(ds) else {"barrier": "a barrier needs two models"}
        return _section(ds, "a line in weight space", self.figures(ds), _numbers(ds, LANDSCAPE_NUMBERS, why))

    def view(self, ds: xr.Dataset) -> View:
        return View(_level(ds), lambda level=ALL: _line_at(ds, None if level == ALL else level))


class Plane(Kind):
    """The loss on one plane in weight space."""

    place = 50

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        path, table = _path(ds, "a plane in weight space"), landscapes.plane_frame(ds)
        yield Drawing(
            "plane",
            landscapes.plane(ds),
            table,
            f"Contours of the loss over the loss at the model on a plane, {path}.",
            "One frozen batch for every point; the loss is divided by that at the model, for each timestep by itself.",
        )
        yield Drawing(
            "surface",
            surface(ds),
            table[table["name"] == "mean"],
            f"Surface of the loss over the loss at the model on a plane, {path}.",
            "The contours of all timesteps as a surface, in the same shades; white dots are models, each on its stem.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"numbers": single_numbers(ds)}

    def section(self, ds: xr.Dataset) -> Section:
        return _section(ds, "a plane in weight space", self.figures(ds), _numbers(ds, PLANE_NUMBERS, {}))

    def view(self, ds: xr.Dataset) -> View:
        return View(_level(ds), lambda level=ALL: _plane_at(ds, None if level == ALL else level))


class Curvature(Kind):
    """The spectrum of second derivatives."""

    place = 60

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        model = reading.model_of(ds)
        yield Drawing(
            "density",
            spectra.spectrum(ds),
            spectra.density_frame(ds),
            f"Density of the eigenvalues of the Hessian of {model}.",
            "Stochastic Lanczos quadrature; the band is one standard error over random vectors, each node a narrow bump.",
        )
        yield Drawing(
            "numbers",
            spectra.by_level(ds),
            spectra.number_frame(ds),
            f"Largest and smallest eigenvalue and trace of {model}, over all samples and by timestep.",
            "95 % intervals over images; those of eigenvalues hold to first order, for the eigenvector that was found.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {"rows": records(spectra.number_frame(ds))}

    def section(self, ds: xr.Dataset) -> Section:
        rows = _eigenvalues(ds, "all", ("top 1", "bottom 1", "trace"))
        named = [(f"{operator}, {quantity}", text) for operator, quantity, text in rows]
        return Section(f"Curvature: {reading.model_of(ds)}", [*self.figures(ds), Facts(named)])

    def view(self, ds: xr.Dataset) -> View:
        parts = tuple(reading.names(ds, "part"))
        return View((Control("part", "samples of", parts, parts[0]),), lambda part: _samples_of(ds, part))


def _path(ds: xr.Dataset, otherwise: str) -> str:
    return str(ds.attrs.get("path", otherwise))


def _section(ds: xr.Dataset, otherwise: str, figures: Iterator[Drawing], numbers: list[tuple[str, str]]) -> Section:
    """The section of a line or plane."""
    path, model = _path(ds, otherwise), str(ds.attrs.get("model", ""))
    parts: list[Part] = list(figures)
    if numbers:
        intervals = {"curvature", "curvature_x"} & set(estimates(ds))
        note = "On one frozen batch; 95 % intervals over its images."
        parts += [Facts(numbers), Note(note if intervals else "Each is one number on one frozen batch: no interval.")]
    who = f" of {model}" if model and model not in path else ""
    return Section(f"Loss landscape{who}: {path}", parts)


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


def _level(ds: xr.Dataset) -> tuple[Control, ...]:
    """The noise level of a loss that was taken by noise level; no control for one that was not."""
    if "loss_by_t" not in ds:
        return ()
    return (Control("level", "noise level t", (ALL, *map(float, ds["t"].values)), ALL),)


def _line_at(ds: xr.Dataset, level: float | None) -> tuple[Figure, str]:
    """The loss along a line over all noise levels, or at one of them."""
    path = _path(ds, "a line in weight space")
    if level is None:
        bend = with_interval(*interval_of(ds, "curvature", np.nan))
        said = f"loss along {path}, all noise levels; second derivative at the model {bend}."
        return probes.landscape(ds), said
    here = ds.sel(t=level, drop=True)
    one = ds[["loss"]]
    add_interval(one, "loss", ("position",), interval_of(here, "loss_by_t"))  # without one in an earlier version
    one.attrs["path"] = f"{path}, t = {level:.2g}"
    said = f"loss along {path} at t = {level:.2f}"
    if "curvature_by_t" in here:
        said += f"; second derivative at the model {interval_text(here, 'curvature_by_t')}"
    return probes.landscape(one), f"{said}."


def _plane_at(ds: xr.Dataset, level: float | None) -> tuple[Figure, str]:
    """The loss on a plane over all noise levels, or beside it at one of them."""
    one, name, at = ds.drop_vars("loss_by_t", errors="ignore"), "mean", "over all noise levels"
    if level is not None:
        one, name, at = ds.sel(t=[level]), f"t = {level:.2g}", f"at t = {level:.2f}"
    table = landscapes.plane_frame(one)
    worst = table[table["name"] == name]["relative"].max()
    said = f"loss on {_path(ds, 'a plane in weight space')}, {at}: at most {worst:.3g} times that at the model."
    return landscapes.plane(one, most=1), said


def _eigenvalues(ds: xr.Dataset, part: str, quantities: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(operator, quantity, value with interval) of the samples of one part."""
    numbers = spectra.number_frame(ds)
    shown = numbers[(numbers["part"] == part) & numbers["quantity"].isin(quantities)]
    return [
        (
            row["operator"].replace("_", "-"),
            row["quantity"],
            with_interval(row["value"], row["low"], row["high"]) + ("" if row["converged"] else ", not converged"),
        )
        for row in shown.to_dict("records")
    ]


def _samples_of(ds: xr.Dataset, part: str) -> tuple[Figure, str]:
    """The spectrum of all samples, or of those at one noise level."""
    known = "; ".join(" ".join(row) for row in _eigenvalues(ds, part, ("top 1", "trace")))
    one = ds.sel(part=[part]).assign_coords(part=["all"])
    return spectra.spectrum(one), f"curvature of {reading.model_of(ds)}, samples of {part}: {known} ({OVER_IMAGES})."
