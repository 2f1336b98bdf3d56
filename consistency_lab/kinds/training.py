"""Training as it went, and the recipe for the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.kinds.base import Drawing, Facts, Kind, Part, Section, Steps, Table
from consistency_lab.kinds.numbers import number
from consistency_lab.kinds.words import facts_of
from consistency_lab.plots import frames, training


class Training(Kind):
    """Loss over steps and the time that training took."""

    place = 80

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        table = frames.training(ds)
        yield Drawing(
            "loss",
            training.loss(ds),
            table,
            f"Training loss over steps of {', '.join(map(str, table['model'].unique()))}.",
            "Dots: batches as recorded; lines: running median over the last fifth of the steps so far.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {}

    def section(self, ds: xr.Dataset) -> Section:
        head = ("model", "steps", "loss, last fifth: median (middle 50 %)", "time")
        return Section("Training", [*self.figures(ds), Table(head, _ends(ds))])


def _ends(ds: xr.Dataset) -> list[tuple[str, ...]]:
    seconds = facts_of(ds).get("seconds")
    rows: list[tuple[str, ...]] = []
    for name, line in frames.training(ds).groupby("model", sort=False):
        last = line["loss"].to_numpy(dtype=float)[-max(1, len(line) // 5) :]
        low, middle, high = np.quantile(last, [0.25, 0.5, 0.75])
        spent = seconds.get(name) if isinstance(seconds, dict) else None
        loss = f"{number(middle)} ({number(low)} to {number(high)})"
        rows.append((str(name), f"{int(line['step'].max())}", loss, f"{spent:.0f} s" if spent else "not recorded"))
    return rows


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
