"""What a race says, as tables: speed-ups with their controls and intervals, and where every contestant ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.errors import UserError
from consistency_lab.intervals import as_columns, mean_interval, without_bounds
from consistency_lab.paper.race.crossing import Crossing, Speedup, haste, speedup, typical
from consistency_lab.store.shapes import lost_variables, whole

AGAINST = {
    "control": "uniform, constant rate",
    "annealed": "fastest uniform with annealing",
    "density": "fastest density of others",
    "twin": "faster static twin",
}
MATCHED = "uniform, same optimizer and preconditioning"


def crossings(race: xr.Dataset, contestant: str, target: float, seconds: bool = False) -> list[Crossing]:
    """When each seed of a contestant arrived, in steps or in seconds of training."""
    at, late = (race[name].sel(contestant=contestant, target=target).values for name in ("crossing", "censored"))
    scale = race["seconds_per_step"].sel(contestant=contestant).values if seconds else 1.0
    return [Crossing(float(step), bool(never)) for step, never in zip(at * scale, late, strict=True)]


def sooner(
    race: xr.Dataset, contestant: str, control: str, target: float, *, seconds: bool = False, extra: float = 0.0
) -> Speedup:
    """`speedup` of a contestant over a control, in steps or in seconds of training; unknown where nothing was timed.

    Args:
        extra: added to the contestant's crossings.
    """
    base, own = (crossings(race, name, target, seconds) for name in (control, contestant))
    return _sooner(base, own, extra)


def _sooner(base: Sequence[Crossing], own: Sequence[Crossing], extra: float) -> Speedup:
    if np.isnan([each.at for each in (*base, *own)]).any():
        return Speedup(np.nan, np.nan, np.nan, "unknown", len(own), 0)
    return speedup(base, own, extra)


def fastest(race: xr.Dataset, names: Sequence[str], target: float) -> str:
    """The contestant with the fewest seeds that never arrived, and then the earliest; see `haste`."""
    return min(names, key=lambda name: haste(crossings(race, name, target)))


def race_table(race: xr.Dataset, target: float | None = None) -> pd.DataFrame:
    """One row per contestant and control.

    Args:
        race: the result of a race.
        target: the last of the race's by default.

    Returns:
        ``contestant, role, entry, fastest`` (of its entry), ``against`` (what kind of control), ``control`` (which), ``crossing``
        (geometric mean in steps; a lower bound where ``censored`` runs never arrived), ``diverged`` (seeds), then ``speedup`` with its
        interval and ``bound`` in steps (see `Speedup`), the same with ``seconds_`` in time of training (unknown in a race so far, whose
        steps are timed at its end), with ``pilot_`` in steps with those of its pilot added, and with ``pilot_seconds_`` in time with that
        of its pilot and the probes added; ``total_variation`` of its density over the run from uniform, and ``effective_sample_size``, what
        a batch of it is worth once it is weighted back to uniform, in samples, both means over seeds.

    Raises:
        UserError: what is no result of a race, or a target that was not raced for.
    """
    race = _whole_race(race)
    wanted = [float(each) for each in race["target"].values]
    target = wanted[-1] if target is None else target
    if target not in wanted:
        raise UserError(f"the race was run for the targets {wanted}, not {target!r}.")
    names = [str(name) for name in race["contestant"].values]
    roles, entries = ([str(x) for x in race[key].values] for key in ("role", "entry"))
    steps, seconds = ({name: crossings(race, name, target, timed) for name in names} for timed in (False, True))

    def first(members: Iterable[str]) -> str:
        return min(members, key=lambda name: haste(steps[name]))

    of_entry = {own: [name for name, its in zip(names, entries, strict=True) if its == own] for own in entries}
    controls = {}
    for role, label in AGAINST.items():
        if members := [name for name, own in zip(names, roles, strict=True) if own == role]:
            controls[label] = first(members)
    table = []
    for name, role, entry in zip(names, roles, entries, strict=True):
        part = race.sel(contestant=name)
        audit = {
            "total_variation": float(part["total_variation"].mean()),
            "effective_sample_size": float(part["effective_share"].mean()) * int(part["batch"]),
        }
        against = dict(controls)
        if members := of_entry.get(str(part["matched"].item() if "matched" in part else ""), []):
            against[MATCHED] = first(members)
        late, crossing = typical(steps[name])
        own: dict[str, Any] = {
            "contestant": name,
            "role": role,
            "entry": entry,
            "fastest": first(of_entry[entry]) == name,
        }
        found = {"crossing": crossing, "censored": late, "diverged": int(part["diverged_at"].notnull().sum())}
        pilot, pilot_seconds = float(part["pilot_steps"]), float(part["pilot_seconds"])
        for label, control in against.items():
            row = {**own, "against": label, "control": control, **found}
            row |= _columns("", _sooner(steps[control], steps[name], 0.0))
            row |= _columns("seconds_", _sooner(seconds[control], seconds[name], 0.0))
            row |= _columns("pilot_", _sooner(steps[control], steps[name], pilot))
            row |= _columns("pilot_seconds_", _sooner(seconds[control], seconds[name], pilot_seconds))
            table.append({**row, **audit})
    return pd.DataFrame(table)


def finals_table(race: xr.Dataset) -> pd.DataFrame:
    """Where contestants ended: ``contestant, steps``, then ``loss`` and ``frechet`` of the last evaluation, means over the seeds that did
    not diverge with their 95 % t intervals, ``diverged``; and the references, which have no steps.

    Raises:
        UserError: what is no result of a race.
    """
    race = _whole_race(race)
    table: list[dict[str, Any]] = []
    metrics = [str(metric) for metric in race["metric"].values]
    for name in race["contestant"].values:
        part = race.sel(contestant=name)
        sound = np.isnan(part["diverged_at"].values)
        row: dict[str, Any] = {
            "contestant": str(name),
            "steps": int(part["planned_steps"]),
            "diverged": int((~sound).sum()),
        }
        for key, variable in (("loss", "evaluation_loss"), ("frechet", "frechet")):
            values = part[variable].values[sound]
            ends = [line[np.isfinite(line)][-1:] for line in values]
            final = np.concatenate(ends) if ends else np.empty(0)
            row |= as_columns(key, mean_interval(final) if len(final) else without_bounds(np.nan))
        table.append(row)
    for name in race["reference"].values:
        loss, frechet = (float(race["reference_value"].sel(reference=name, metric=metric)) for metric in metrics)
        table.append({"contestant": str(name), "loss": loss, "frechet": frechet})
    return pd.DataFrame(table)


def _whole_race(race: object) -> xr.Dataset:
    if not isinstance(race, xr.Dataset) or race.attrs.get("kind") != "race":
        raise UserError("this needs the result of a race; give what run_race or load_result returns.")
    if missing := lost_variables(race):
        raise UserError(f"this result of a race has lost {', '.join(missing)}; give it as it was made.")
    return whole(race)


def _columns(prefix: str, found: Speedup) -> dict[str, Any]:
    return {**as_columns(f"{prefix}speedup", found[:3]), f"{prefix}bound": found.bound}
