"""From the results of probes, training and recipes to what the page's template needs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.plots import frames, probes, reading, training
from consistency_lab.reports import probed, words
from consistency_lab.reports.numbers import number, with_interval
from consistency_lab.reports.svg import picture


def difficulty(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """How hard each timestep is for one model."""
    table = frames.difficulty(ds)
    model, units = reading.model_of(ds), reading.names(ds, "units")
    errors = table[(table["quantity"] == "error") & (table["name"] == model)].dropna(subset="value")
    hardest = []
    for unit in units:
        rows = errors[errors["units"] == unit].sort_values("value").to_dict("records")
        if rows:
            error = with_interval(rows[-1]["value"], rows[-1]["low"], rows[-1]["high"])
            hardest.append((f"in {unit} units", f"t = {rows[-1]['t']:.2f}", error))
    figure = picture(
        probes.difficulty(ds),
        f"{key}-error",
        f"Denoising error of {model} along t in {', '.join(units)} units beside closed-form references.",
        "Error per timestep, mean over pixels and samples with its 95 % interval. Which times are hard depends on the "
        "units: an error in eps units is divided by alpha²/sigma² to be one in x0 units. Below: the error minus that "
        "of a reference.",
        table,
    )
    return {
        "kind": "difficulty",
        "key": key,
        "model": model,
        "picture": figure,
        "hardest": hardest,
        "definitions": probed.definitions_of(ds, key),
        **made(ds),
    }


def structure(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """Which noise level decides the image."""
    return {**probed.structure(ds, key), **made(ds)}


def connectivity(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """Whether two models share a basin."""
    return {**probed.connectivity(ds, key), **made(ds)}


def training_curves(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """Loss over steps and the time that training took."""
    table = frames.training(ds)
    seconds = words.facts_of(ds).get("seconds")
    rows = []
    for name, line in table.groupby("model", sort=False):
        last = line["loss"].to_numpy(dtype=float)[-max(1, len(line) // 5) :]
        low, middle, high = np.quantile(last, [0.25, 0.5, 0.75])
        spent = seconds.get(name) if isinstance(seconds, dict) else None
        rows.append(
            (
                name,
                f"{int(line['step'].max())}",
                f"{number(middle)} ({number(low)} to {number(high)})",
                f"{spent:.0f} s" if spent else "not recorded",
            )
        )
    figure = picture(
        training.loss(ds),
        f"{key}-loss",
        f"Training loss over steps of {', '.join(map(str, table['model'].unique()))}.",
        "Dots: batches as recorded; lines: running median over the last fifth of the steps so far.",
        table,
    )
    return {"kind": "training", "key": key, "picture": figure, "rows": rows, **made(ds)}


def recipe(ds: xr.Dataset, key: str) -> dict[str, Any]:
    """What the findings suggest for the next training run."""
    settings = _json(ds.attrs.get("settings"), dict)
    figure = picture(
        training.recipe_density(ds),
        f"{key}-density",
        "Density from which the recipe draws timesteps, beside the uniform density.",
        "The area under each curve is one.",
        frames.recipe(ds),
    )
    return {
        "kind": "recipe",
        "key": key,
        "title": str(ds.attrs.get("title", "Recipe")),
        "reasons": [str(reason) for reason in _json(ds.attrs.get("reasons"), list)],
        "settings": [
            (str(name), value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items()
        ],
        "picture": figure,
        **made(ds),
    }


def _json(text: Any, kind: type) -> Any:
    """The parsed attribute where it is of the expected kind, else an empty one: a section may do without it."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()


def made(ds: xr.Dataset) -> dict[str, str]:
    """What every section says at its end."""
    facts = words.facts_of(ds)
    parts = [f"{facts['samples']} samples"] if "samples" in facts else []
    parts += [f"{term} {text}" for term, text in words.machine(facts)]
    return {"made": "; ".join(parts)}
