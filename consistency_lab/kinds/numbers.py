"""Numbers as the reader and as a program gets them: every one with its interval, none as ``nan``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import interval_of
from consistency_lab.plots import frames, reading
from consistency_lab.similarity.quantities import unit_of

OVER_IMAGES = "95 % intervals over images"


def number(value: float, digits: int = 3) -> str:
    """A value to ``digits`` significant digits, with a true minus sign; "undefined" for NaN."""
    value = float(value)
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    if "e+" in text and abs(value) < 1e6:  # thousands are read more easily in full
        text = f"{float(text):.0f}"
    return text.replace("-", "−")


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """``0.91 [0.83, 0.98]``; says so when there is no interval."""
    if math.isnan(value):
        return "undefined"
    if math.isnan(low) or math.isnan(high):
        return f"{number(value, digits)} (no interval)"
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def interval_text(container: Any, name: str) -> str:
    """`with_interval` of the one number of that name that a part of a result, or a row, holds."""
    return with_interval(*(np.asarray(part).item() for part in interval_of(container, name)))


def duration(seconds: float) -> str:
    """``41 s``, ``6 min 8 s``, ``3 h 20 min``: a time to be read."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def score_text(value: float, low: float, high: float) -> str:
    """A score with its interval to three decimals, the precision at which scores are compared."""
    if math.isnan(value):
        return "undefined"
    # + 0.0 takes the minus off a rounded zero.
    parts = [f"{round(part, 3) + 0.0:.3f}".replace("-", "−") for part in (value, low, high)]
    return parts[0] if math.isnan(low) or math.isnan(high) else f"{parts[0]} [{parts[1]}, {parts[2]}]"


def single_numbers(ds: xr.Dataset) -> dict[str, float | None]:
    """The numbers of a result that have no dimensions, as strict JSON."""
    return {str(name): plain(x.item()) for name, x in ds.data_vars.items() if not x.dims}


def plain(value: Any) -> Any:
    """The value as strict JSON: numpy types become Python's, values that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as strict JSON."""
    return [plain(row) for row in table.to_dict("records")]


@dataclass(frozen=True)
class Headline:
    """The first number of a comparison: the family's consistency score at t = 0, with everything needed to read it.

    ``score``, ``low``, ``high`` have no unit and are NaN where undefined (then ``reason`` says why); ``distance``,
    ``null`` and ``ceiling`` are (mean, low, high) in ``units``; ``interval`` names the interval of the score. ``warnings`` are what the
    comparison itself holds against the score; they belong wherever the score is shown. ``trimmed`` (with its interval) and ``median`` are
    the scores of typical samples, None where they were not computed, and ``odd`` is a sentence on the model that agrees least, empty for
    fewer than three models.
    """

    metric: str
    units: str
    models: int
    pairs: int
    samples: int
    score: float
    low: float
    high: float
    interval: str
    distance: tuple[float, float, float]
    null: tuple[float, float, float]
    ceiling: tuple[float, float, float] | None
    reason: str | None
    warnings: tuple[str, ...] = ()
    trimmed: tuple[float, float, float] | None = None
    median: float | None = None
    odd: str = ""

    @property
    def sentence(self) -> str:
        """One sentence that can stand alone in a terminal or a paper, and the warnings that belong to it."""
        between = f"{self.models} models, {self.pairs} pair{'s' if self.pairs > 1 else ''}, {self.samples} samples"
        held = "".join(f" Warning: {warning}" for warning in self.warnings)
        if self.reason:
            return f"consistency score ({self.metric}) undefined: {self.reason} ({between}).{held}"
        text = score_text(self.score, self.low, self.high)
        typical = f"; {self.typical}" if self.typical else ""
        odd = f" {self.odd}" if self.odd else ""
        return f"consistency score ({self.metric}) {text} at t = 0{typical}; interval: {self.interval}; {between}.{odd}{held}"

    @property
    def typical(self) -> str:
        """The scores of typical samples in words; empty where they are not known."""
        if self.trimmed is None or self.median is None or math.isnan(self.trimmed[0]):
            return ""
        nan = math.nan
        return f"of typical samples {score_text(*self.trimmed)} (10 % trimmed), {score_text(self.median, nan, nan)} (median)"

    def as_dict(self) -> dict[str, Any]:
        """As strict JSON: undefined numbers are None beside their reason."""
        return plain({**vars(self), "sentence": self.sentence})


def headline(ds: xr.Dataset, metric: str | None = None) -> Headline:
    """The headline of a comparison. Raises `UserError` for another kind of result or an unknown metric."""
    metric = metric or reading.headline_metric(ds)
    table = {row["group"]: row for row in frames.overview(ds, metric).to_dict("records") if row["group"] != "pair"}

    def values(group: str, what: str) -> tuple[float, float, float]:
        return tuple(map(float, interval_of(table[group], what)))  # type: ignore[return-value]

    score, low, high = values("family", "score")
    return Headline(
        metric=metric,
        units=unit_of(ds, metric),
        models=ds.sizes["model"],
        pairs=ds.sizes["pair"],
        samples=ds.sizes["sample"],
        score=score,
        low=low,
        high=high,
        interval=str(table["family"]["interval"]),
        distance=values("family", "distance"),
        null=values("null", "distance"),
        ceiling=values("ceiling", "distance") if "ceiling" in table else None,
        reason=reading.why_undefined(ds, metric) if math.isnan(score) else None,
        warnings=tuple(reading.warnings(ds)),
        odd=odd_one_out(ds, metric),
        **_typical(ds, metric),
    )


def _typical(ds: xr.Dataset, metric: str) -> dict[str, Any]:
    if "family_trimmed_score" not in ds:
        return {}
    one = ds.isel(t=-1).sel(metric=metric)
    trimmed = tuple(interval_of(one, "family_trimmed_score"))
    return {"trimmed": trimmed, "median": float(one["family_median_score"])}


def odd_one_out(ds: xr.Dataset, metric: str) -> str:
    """Which model agrees least with the others, in a sentence; empty for fewer than three models or an undefined score."""
    if "odd" not in ds:
        return ""
    one = ds.isel(t=-1).sel(metric=metric)
    index, (rise, low, high) = float(one["odd"]), map(float, interval_of(one, "odd_rise"))
    if index < 0 or math.isnan(rise):
        return ""
    name, without = reading.names(ds, "model")[int(index)], float(one["without_score"][int(index)])
    said = (
        f"without {name} the others score {score_text(without, math.nan, math.nan)}, {score_text(rise, low, high)} more"
    )
    return f"The odd one out: {said}." if low > 0 else f"No model stands out: {said} at the most."
