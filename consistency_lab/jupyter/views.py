"""What of each kind of result can be looked at: its controls, and the figure and sentence at a setting of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.errors import UserError, unknown_name
from consistency_lab.jupyter import levels
from consistency_lab.jupyter.sample_view import sample_labels, sample_sentence, sample_view
from consistency_lab.plots import reading
from consistency_lab.plots.figures import figures_of
from consistency_lab.store.shapes import whole

Drawn = tuple[Figure, str]
ALL = "all"  # the value of a noise level that means: over all of them


@dataclass(frozen=True)
class Control:
    """Something that can be set.

    Attributes:
        name: as a keyword of `explore`.
        title: beside the slider or menu.
        options: the values that it can take, in order: numbers, or texts.
        first: where it stands unless told.
    """

    name: str
    title: str
    options: tuple[Any, ...]
    first: Any

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers (after, perhaps, the text `ALL`): then it is a slider."""
        return isinstance(self.options[-1], int | float)

    def labelled(self) -> list[tuple[str, Any]]:
        """(text, value) of each option."""
        return [(f"{value:.3g}" if isinstance(value, float) else str(value), value) for value in self.options]

    def settle(self, value: Any) -> Any:
        """The option that is meant. Raises `UserError` for a text that is none, or a number beyond the options."""
        numbers = [each for each in self.options if isinstance(each, int | float)]
        if isinstance(value, int | float) and not isinstance(value, bool) and numbers:
            if not min(numbers) <= value <= max(numbers):
                raise UserError(f"{self.name}={value!r} is outside this result's {min(numbers):g} to {max(numbers):g}.")
            return min(numbers, key=lambda each: abs(each - value))
        if value in self.options:
            return value
        raise unknown_name(f"value of {self.name}", str(value), map(str, self.options))


@dataclass(frozen=True)
class View:
    """The controls of a result, and what draws it: keywords named as the controls -> figure and sentence."""

    controls: tuple[Control, ...]
    draw: Callable[..., Drawn]

    def settled(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """A value for every control. Raises `UserError` for a control that does not exist."""
        known = [each.name for each in self.controls]
        for name in start:
            if name not in known:
                raise unknown_name("control of this result", name, known)
        return {
            each.name: each.settle(start[each.name]) if each.name in start else each.first for each in self.controls
        }


def view_of(result: object) -> View:
    """The view of a result. Raises `UserError` for anything else."""
    ds = whole(result)
    kind = str(ds.attrs["kind"])
    if kind not in VIEWS:
        raise unknown_name("kind of result", kind, VIEWS)
    return VIEWS[kind](ds)


def _comparison(ds: xr.Dataset) -> View:
    times = tuple(map(float, ds["t"].values))
    samples, metrics = tuple(sample_labels(ds)), tuple(reading.names(ds, "metric"))
    controls = (
        Control("t", "t", times, times[-1]),
        Control("sample", "sample", samples, samples[0]),
        Control("metric", "metric", metrics, reading.headline_metric(ds)),
    )
    return View(controls, lambda **at: (sample_view(ds, **at), sample_sentence(ds, **at)))


def _difficulty(ds: xr.Dataset) -> View:
    times, measures = tuple(map(float, ds["t"].values)), tuple(levels.measures(ds))
    controls = (
        Control("measure", "measure", measures, measures[0]),
        Control("t", "t", times, times[len(times) // 2]),
    )
    return View(controls, lambda measure, t: (levels.along_t(ds, measure, t), levels.at_t(ds, measure, t)))


def _structure(ds: xr.Dataset) -> View:
    times = tuple(map(float, ds["t"].values))
    control = Control("t", "t", times, times[len(times) // 2])
    return View((control,), lambda t: (levels.structure(ds, t), levels.structure_sentence(ds, t)))


def _line(ds: xr.Dataset) -> View:
    return View(_level(ds), lambda level=ALL: levels.line(ds, None if level == ALL else level))


def _plane(ds: xr.Dataset) -> View:
    return View(_level(ds), lambda level=ALL: levels.plane(ds, None if level == ALL else level))


def _level(ds: xr.Dataset) -> tuple[Control, ...]:
    """The noise level of a loss that was taken by noise level; no control for one that was not."""
    if "loss_by_t" not in ds:
        return ()
    return (Control("level", "noise level t", (ALL, *map(float, ds["t"].values)), ALL),)


def _curvature(ds: xr.Dataset) -> View:
    parts = tuple(reading.names(ds, "part"))
    return View((Control("part", "samples of", parts, parts[0]),), lambda part: levels.curvature(ds, part))


def _connectivity(ds: xr.Dataset) -> View:
    paths = tuple(reading.names(ds, "path"))
    return View((Control("path", "path", paths, paths[0]),), lambda path: levels.connectivity(ds, path))


def _figures(ds: xr.Dataset) -> View:
    """A result without an axis to walk along: a choice among its figures."""
    drawn = {name: figure for name, figure, _ in figures_of(ds)}
    names, kind = tuple(drawn), str(ds.attrs["kind"])
    return View((Control("figure", "figure", names, names[0]),), lambda figure: (drawn[figure], f"{kind}: {figure}."))


VIEWS: dict[str, Callable[[xr.Dataset], View]] = {
    "comparison": _comparison,
    "difficulty": _difficulty,
    "structure": _structure,
    "landscape": _line,
    "plane": _plane,
    "curvature": _curvature,
    "connectivity": _connectivity,
    "training": _figures,
    "recipe": _figures,
    "timesteps": _figures,
    "race": _figures,
}
