"""Definitions of "hard" side by side: each a curve over t with an interval, and how far they agree.

Every definition comes with the same kind of replicates: its curve with one group of images left out. Whatever is read off a curve, or off
two of them, is read off the replicates too, and the delete-a-group jackknife (Shao & Wu 1989) gives its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from consistency_lab.errors import StoreError, UserError
from consistency_lab.intervals import (
    Array,
    add_interval,
    as_columns,
    interval_names,
    jackknife,
    stacked,
)
from consistency_lab.store.results import provenance
from consistency_lab.store.shapes import whole

GROUPS = 16  # of images that are left out in turn
HALF = 0.5  # the time that tables split at
OVER_OPTIMAL = "over optimal"
VOID = f"{OVER_OPTIMAL} (void: of held-out images)"


@dataclass(frozen=True)
class Profile:
    """One definition of difficulty.

    Attributes:
        name, unit, meaning: what it is called, what it is measured in, and one sentence for readers.
        estimate: ``(t,)``; NaN where it is undefined.
        without: ``(groups, t)``, the same with one group of images left out.
    """

    name: str
    unit: str
    meaning: str
    estimate: Array
    without: Array


def group_count(images: int) -> int:
    """How many groups the images are dealt to; image i is in group i mod that."""
    return min(GROUPS, images)


def leave_out_means(values: Array, groups: int) -> Array:
    """Means along the last axis with one group left out: ``(..., images)`` -> ``(groups, ...)``; NaN for a single image."""
    values = np.asarray(values, dtype=np.float64)
    count, total = values.shape[-1], values.sum(-1)
    sums = np.stack([values[..., g::groups].sum(-1) for g in range(groups)])
    left = np.array([count - len(range(g, count, groups)) for g in range(groups)]).reshape(-1, *[1] * total.ndim)
    return np.where(left > 0, (total - sums) / np.maximum(left, 1), np.nan)


def add_profiles(result: xr.Dataset, profiles: Sequence[Profile]) -> None:
    """Add ``profile (definition, t)`` with its interval, and the replicates ``profile_without (definition, group, t)``."""
    result.coords["definition"] = [p.name for p in profiles]
    result.coords["definition_unit"] = ("definition", [p.unit for p in profiles])
    result.coords["definition_meaning"] = ("definition", [p.meaning for p in profiles])
    add_interval(result, "profile", ("definition", "t"), stacked(jackknife(p.estimate, p.without) for p in profiles))
    result["profile_without"] = (("definition", "group", "t"), np.stack([p.without for p in profiles]))


def difficulty_table(result: xr.Dataset) -> pd.DataFrame:
    """Which definition calls which time hard: one row per definition.

    Columns: definition, unit; peak_t, where the curve is highest, and peak_t_low to peak_t_high, from the first to the last time that
    cannot be told apart from it, which hold the true peak in 95 % of cases (`_peak`; NaN for a single image); share_below with its
    95 % interval, the share of the curve's area (of what lies above 0) at t < 0.5, and uniform_below, what a flat curve would have there;
    defined, the share of times at which the definition has a value.

    Raises:
        UserError: the result is of another kind, or from a version without profiles.
    """
    result = with_void_marked(_with_profiles(result))
    t, rows = result["t"].values, []
    for name in result["definition"].values:
        one = result.sel(definition=name)
        values, replicates = one["profile"].values, one["profile_without"].transpose("group", "t").values
        known = np.isfinite(values)
        row = {"definition": str(name), "unit": str(one["definition_unit"].values), "defined": known.mean()}
        if known.any():
            row |= as_columns("peak_t", _peak(t, values, replicates))
        share = _statistic(partial(_share_below, t), values, replicates)
        row |= as_columns("share_below", np.clip(share, 0.0, 1.0))
        rows.append({**row, "uniform_below": float((t[known] < HALF).mean()) if known.any() else np.nan})
    numbers = interval_names("peak_t", "share_below")
    return pd.DataFrame(rows, columns=["definition", "unit", *numbers, "uniform_below", "defined"])


def difficulty_correlations(result: xr.Dataset) -> pd.DataFrame:
    """How far two definitions order the times alike: columns first, second, rho, rho_low, rho_high, times.

    rho is Spearman's rank correlation over the times at which both are defined. Its interval is over images: neighbouring times are no
    independent draws, so that the usual p-value would be wrong. Where no group of images changes the order of any two times it has no
    width.

    Raises:
        UserError: the result is of another kind, or from a version without profiles.
    """
    result = with_void_marked(_with_profiles(result))
    values = result["profile"].transpose("definition", "t").values
    replicates = result["profile_without"].transpose("definition", "group", "t").values
    rows = []
    for a, b in combinations(range(len(values)), 2):
        both = np.isfinite(values[a]) & np.isfinite(values[b])
        found = _statistic(
            _spearman,
            np.stack([values[a, both], values[b, both]]),
            np.stack([replicates[a][:, both], replicates[b][:, both]], 1),
        )
        names = [str(result["definition"].values[i]) for i in (a, b)]
        rows.append([*names, *np.clip(found, -1.0, 1.0), int(both.sum())])
    return pd.DataFrame(rows, columns=["first", "second", *interval_names("rho"), "times"])


def with_void_marked(result: xr.Dataset) -> xr.Dataset:
    """A difficulty result, with an excess over the optimal denoiser that was taken on held-out images taken out and named `VOID`.

    Results of before `probe_difficulty` took it on training images have that: where the optimal denoiser does not hold the images it is
    worse than a trained model, and the difference says nothing of what can still be learned.
    """
    try:
        facts = provenance(result)
    except StoreError:
        return result
    fitted_to = facts.get("references_fitted_to")
    if fitted_to is None or "excess_over_optimal_on" in facts or facts["images"]["name"] == fitted_to:
        return result
    marked = result.copy()
    for name in (name for name in result if str(name).startswith("excess")):
        marked[name] = result[name].where(result["reference"] != "optimal")
    if "definition" in result.coords:
        sound = result["definition"] != OVER_OPTIMAL
        for name in (name for name in result if str(name).startswith("profile")):
            marked[name] = result[name].where(sound)
        known = [
            str(name) if keep else VOID for name, keep in zip(result["definition"].values, sound.values, strict=True)
        ]
        marked = marked.assign_coords(definition=known)
        for name in ("definition_unit", "definition_meaning"):
            marked.coords[name] = ("definition", result[name].values)
    return marked


def _peak(t: Array, values: Array, replicates: Array) -> tuple[float, float, float]:
    """The time of the highest value, and the range of those that cannot be told apart from it.

    A time stays unless the highest value is above its own by more than the 1 - 0.05 / (times - 1) quantile of t in standard errors of
    their difference: the true peak is left out only if some other time wrongly seems above it, in at most 5 % of cases (Hsu 1984's
    comparisons with the best, bounded after Bonferroni). What has no standard error stays.
    """
    best, known, groups = int(np.nanargmax(values)), np.isfinite(values), len(replicates)
    if groups < 2:
        return t[best], np.nan, np.nan
    without = replicates[:, [best]] - replicates
    error = np.sqrt((groups - 1) / groups * ((without - without.mean(0)) ** 2).sum(0))
    apart = stats.t.ppf(1 - 0.05 / max(known.sum() - 1, 1), groups - 1) * error
    alike = known & ~(values[best] - values > apart)
    return t[best], t[alike].min(), t[alike].max()


def _statistic(function: Callable[[Array], float], estimate: Array, replicates: Array) -> list[float]:
    without = np.array([function(replicate) for replicate in replicates])
    return [float(x) for x in jackknife(np.array(function(estimate)), without)]


def _share_below(t: Array, curve: Array) -> float:
    mass = np.where(np.isfinite(curve), np.maximum(curve, 0.0), 0.0)
    return float(mass[t < HALF].sum() / mass.sum()) if mass.sum() > 0 else np.nan


def _spearman(curves: Array) -> float:
    if curves.shape[1] < 4 or not np.isfinite(curves).all():
        return np.nan
    a, b = (stats.rankdata(row) - (curves.shape[1] + 1) / 2 for row in curves)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else np.nan


def _with_profiles(result: object) -> xr.Dataset:
    if not isinstance(result, xr.Dataset) or result.attrs.get("kind") != "difficulty" or "profile" not in result:
        raise UserError(
            "this needs a difficulty result with its definitions beside each other; make one with probe_difficulty."
        )
    return whole(result)
