"""Training as it went, which of two runs arrived sooner, and the recipe for the next one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.kinds.base import Drawing, Facts, Kind, Note, Part, Section, Steps, Table
from consistency_lab.kinds.numbers import duration, number, plain
from consistency_lab.kinds.words import facts_of, models_of
from consistency_lab.plots import frames, training

DERIVED = ("lr_final", "momentum", "timesteps")  # settings that a recipe derives


class Training(Kind):
    """Loss over steps and the time that training took."""

    place = 80

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        table = frames.training(ds)
        held_out = " Right: the loss of averaged weights on held-out images." if training.has_held_out(ds) else ""
        yield Drawing(
            "loss",
            training.loss(ds),
            table,
            f"Training loss over steps of {', '.join(map(str, table['model'].unique()))}.",
            f"Dots: batches as recorded; lines: running median over the last fifth of the steps so far.{held_out}",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        spent = {str(model["name"]): model["seconds"] for model in models_of(facts_of(ds)) if model.get("seconds")}
        return {"seconds": plain(spent), "sooner": _sooner(ds)}

    def section(self, ds: xr.Dataset) -> Section:
        rows = _ends(ds)
        head = ("model", "steps", "loss, last fifth: median (middle 50 %)", "held-out loss at the end", "time")
        kept = [i for i in range(len(head)) if i < 3 or any(row[i] for row in rows)]
        table = Table([head[i] for i in kept], [[row[i] or "–" for i in kept] for row in rows])
        clock = (
            [Note("Time: of the wall clock, with all that the machine did beside it.")]
            if head[-1] in table.head
            else []
        )
        return Section("Training", [*_sooner(ds), *self.figures(ds), table, *clock])


def _ends(ds: xr.Dataset) -> list[tuple[str, ...]]:
    """Model, steps, loss, held-out loss and time; empty where one is not known."""
    seconds = {str(model.get("name")): model.get("seconds") for model in models_of(facts_of(ds))}
    rows: list[tuple[str, ...]] = []
    for name, line in frames.training(ds).groupby("model", sort=False):
        last = line["loss"].to_numpy(dtype=float)[-max(1, len(line) // 5) :]
        low, middle, high = np.quantile(last, [0.25, 0.5, 0.75])
        loss, spent = f"{number(middle)} ({number(low)} to {number(high)})", seconds.get(str(name))
        held_out = line["held_out"].dropna()
        ended = number(held_out.iloc[-1]) if len(held_out) else ""
        rows.append((str(name), f"{int(line['step'].max())}", loss, ended, duration(spent) if spent else ""))
    return rows


def _sooner(ds: xr.Dataset) -> list[str]:
    """Of every two runs that differ in what a recipe changes and in nothing else: when the second reached what the first came to."""
    facts, table = facts_of(ds), frames.training(ds).dropna(subset="held_out")
    specs, seconds = facts.get("specs"), {str(model.get("name")): model.get("seconds") for model in models_of(facts)}
    if not isinstance(specs, Mapping) or table.empty:
        return []
    lines = {str(name): line for name, line in table.groupby("model", sort=False)}
    said = []
    for first, second in itertools.combinations([name for name in lines if name in specs], 2):
        if changed := _changed(specs[first], specs[second]):
            one, other = (_Run(name, lines[name], seconds.get(name)) for name in (first, second))
            said.append(_arrival(one, other, ", ".join(changed)))
    return said


class _Run(NamedTuple):
    """A run with its validations, and how many seconds all of it took."""

    name: str
    line: pd.DataFrame
    seconds: float | None

    @property
    def end(self) -> int:
        return int(self.line["step"].iloc[-1])


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The settings of a recipe in which two specs differ; none where they also differ in others."""
    one, other = ({**spec, **spec["settings"], "settings": None} for spec in (first, second))
    differing = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return sorted(differing) if set(differing) <= set(DERIVED) else []


def _arrival(first: _Run, second: _Run, changed: str) -> str:
    goal = float(first.line["held_out"].iloc[-1])
    what = f"the held-out loss with which {first.name} ended ({number(goal)} after {first.end} steps)"
    who, alone = f"{second.name} ({changed} changed)", "One run each, so there is no interval"
    step = _crossing(second.line, goal)
    if step is None:
        least = number(second.line["held_out"].min())
        return f"{who} was not faster: it never reached {what}; its least was {least}. {alone}."
    sooner, in_time = first.end / step, ""
    if first.seconds and second.seconds:  # steps of a run take alike
        in_time = f" and {number(sooner * first.seconds / first.end / (second.seconds / second.end))} times in wall-clock time"
    verdict = "faster" if sooner > 1 else "not faster"
    return (
        f"{who} was {verdict}: it reached {what} after {round(step)} steps, {number(sooner)} times as soon in steps{in_time}, "
        f"what led to the change not counted. {alone}."
    )


def _crossing(line: pd.DataFrame, goal: float) -> float | None:
    """The step at which the held-out loss first reaches the goal, on a straight line between the validations around it; None if never."""
    steps, losses = (line[name].to_numpy(dtype=float) for name in ("step", "held_out"))
    there = np.flatnonzero(losses <= goal)
    if not len(there):
        return None
    if (i := int(there[0])) == 0:
        return float(steps[0])
    return float(np.interp(goal, losses[[i, i - 1]], steps[[i, i - 1]]))


class Recipe(Kind):
    """What the findings suggest for the next training run."""

    place = 90

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        yield Drawing(
            "density",
            training.recipe_density(ds),
            frames.recipe(ds),
            "Density from which the recipe draws timesteps, beside the uniform density.",
            "The area under each curve is one.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {name: json.loads(ds.attrs[name]) for name in ("reasons", "settings") if name in ds.attrs}

    def section(self, ds: xr.Dataset) -> Section:
        settings = [
            (str(name), value if isinstance(value, str) else json.dumps(value))
            for name, value in _json(ds.attrs.get("settings"), dict).items()
        ]
        reasons = [str(reason) for reason in _json(ds.attrs.get("reasons"), list)]
        parts: list[Part] = [Steps(reasons)] if reasons else []
        parts += self.figures(ds)
        if settings:
            parts.append(Facts(settings, code=True))
        return Section(f"Recipe: {ds.attrs.get('title', 'Recipe')}", parts)


def _json(text: Any, kind: type) -> Any:
    """The parsed attribute where it is of the expected kind, else an empty one: a section may do without it."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()
