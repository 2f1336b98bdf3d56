"""The speed-up over targets: one number at one target says little where it rises or falls with the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.errors import UserError
from consistency_lab.paper.race.aggregation import SUSTAINED, qualifies
from consistency_lab.paper.race.crossing import arrival, losses_at
from consistency_lab.paper.race.table import race_table
from consistency_lab.similarity.quality import GAUSSIAN, MEMORISER

FRACTIONS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def speedup_curve(
    race: xr.Dataset, contestants: Sequence[str] | None = None, fractions: Sequence[float] = FRACTIONS
) -> pd.DataFrame:
    """`race_table` at each of many targets.

    The target is the loss that the target pilot had reached at a fraction of its steps. At each of them the fastest control of a kind is
    chosen again, which is hard on the contestants.

    Args:
        race: the result of a race, with the curve of its target pilot (``pilot_loss``).
        contestants: who is in the table, controls apart; all by default.
        fractions: of the pilot's run.

    Returns:
        The columns of `race_table` after ``fraction``, ``target_loss`` and ``qualified``: whether the target is below the loss of what
        needs no training.

    Raises:
        UserError: what is no race, has no pilot's curve, no such contestant, or fractions that its records do not reach.
    """
    again, parts = with_targets(race, fractions), []
    known = [str(name) for name in race["contestant"].values]
    wanted = known if contestants is None else list(contestants)
    if set(wanted) - set(known):
        raise UserError(f"the race has no {', '.join(sorted(set(wanted) - set(known)))}; there are {', '.join(known)}.")
    kept = [
        n
        for n, role in zip(known, race["role"].values, strict=True)
        if n in wanted or role in ("control", "annealed", "matched")
    ]
    again = again.sel(contestant=kept)
    for i, fraction in enumerate(again["target"].values):
        table = race_table(again, float(fraction))
        own = table[table["contestant"].isin(wanted)].copy()
        own.insert(0, "fraction", float(fraction))
        own.insert(1, "target_loss", float(again["target_loss"][i]))
        own.insert(2, "qualified", bool(again["target_qualified"][i]))
        parts.append(own)
    return pd.concat(parts, ignore_index=True)


def with_targets(race: xr.Dataset, fractions: Sequence[float]) -> xr.Dataset:
    """The same runs raced to other targets: ``crossing``, ``censored``, ``target_loss`` and ``target_qualified`` at these fractions."""
    if not isinstance(race, xr.Dataset) or race.attrs.get("kind") != "race" or "pilot_loss" not in race:
        raise UserError(
            "this needs the result of a race with the curve of its target pilot; run the race again: finished rows are kept."
        )
    steps, pilot = race["step"].values, race["pilot_loss"].values
    known, whole = np.isfinite(pilot), int(race["planned_steps"].sel(contestant=race.attrs["control"]))
    first = steps[known].min() / whole
    if not len(fractions) or not all(first <= f <= 1 for f in fractions):
        raise UserError(
            f"targets are fractions of the target pilot's run from {first:g}, its first record, to 1, not {list(fractions)}."
        )
    wanted = losses_at(steps, pilot, np.array(fractions) * whole)
    shape = (race.sizes["contestant"], race.sizes["seed"], len(wanted))
    crossing, censored = np.zeros(shape), np.zeros(shape, dtype=bool)
    losses, gone, planned = race["loss"].values, race["diverged_at"].notnull().values, race["planned_steps"].values
    for i, j, k in np.ndindex(shape):
        there = np.isfinite(losses[i, j])
        own = (steps[there], losses[i, j, there])
        crossing[i, j, k], censored[i, j, k] = arrival(
            *own, float(wanted[k]), SUSTAINED * whole, int(planned[i]), bool(gone[i, j])
        )
    beaten = [float(race["reference_value"].sel(reference=name)[0]) for name in (GAUSSIAN, MEMORISER)]
    per_target = ("contestant", "seed", "target")
    return (
        race.drop_dims("target")
        .assign(
            crossing=(per_target, crossing),
            censored=(per_target, censored),
            target_loss=("target", wanted),
            target_qualified=("target", [qualifies(each, *beaten) for each in wanted]),
        )
        .assign_coords(target=[float(f) for f in fractions])
    )
