"""A gate: its decision, the numbers that it rests on, and the pairs that are furthest apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import xarray as xr

from consistency_lab.gates.decision import FAIL, OPEN, PASS, STATUS
from consistency_lab.intervals import as_value, interval_of
from consistency_lab.kinds.base import Drawing, Kind, Note, Part, Section, Table
from consistency_lab.kinds.numbers import number, plain, records, score_text
from consistency_lab.markup import percent
from consistency_lab.plots import reading
from consistency_lab.plots.differences import BRIGHTENED
from consistency_lab.plots.gate import gate_figure, gate_frame, judged, worst_figure, worst_frame

HEAD = (
    "metric",
    "decision",
    "score [low, high]",
    "must be",
    "ceiling [low, high]",
    "null",
    "typical samples",
    "worst sample holds",
)


class Gate(Kind):
    place = 5

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        held = "the bound" if judged(ds) == "score" else "the margin"
        yield Drawing(
            "looks",
            gate_figure(ds),
            gate_frame(ds),
            f"Score with its interval over samples seen, and {held}. {self.sentence(ds)}",
            f"Band: {ds.attrs['interval']}. The gate passes once the whole band is on the right side of {held}, and fails once none of it "
            "is. Where nothing is known of an end, the band reaches the edge.",
        )
        yield Drawing(
            "worst",
            worst_figure(ds),
            worst_frame(ds),
            "The pairs that are furthest apart: reference, candidate, difference.",
            "By each metric the samples with the largest distance, in units of the null: 1 is as far as images of other noise. "
            f"{BRIGHTENED}",
        )

    def sentence(self, ds: xr.Dataset) -> str:
        metrics = reading.names(ds, "metric")
        said = " ".join(f"{told(ds, metric)}." for metric in metrics)
        warned = "".join(f" Warning: {sentence}" for sentence in reading.warnings(ds))
        return f"{title(ds)} {said}{warned}"

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        return {
            "decision": ds.attrs["decision"],
            "status": STATUS[ds.attrs["decision"]],
            "sentence": self.sentence(ds),
            "reference": ds.attrs["reference"],
            "candidate": ds.attrs["candidate"],
            "samples": ds.sizes["sample"],
            "interval": ds.attrs["interval"],
            "metrics": {metric: _numbers(ds, metric) for metric in reading.names(ds, "metric")},
            "worst": records(worst_frame(ds)),
            "looks": records(gate_frame(ds)),
            "warnings": reading.warnings(ds),
        }

    def section(self, ds: xr.Dataset) -> Section:
        parts: list[Part] = [self.sentence(ds), Table(HEAD, rows(ds)), *self.figures(ds), Note(note_of(ds))]
        return Section(f"Gate: {ds.attrs['decision']}", parts)


def title(ds: xr.Dataset) -> str:
    """``pass: int8 against fp16, 288 samples.``"""
    return f"{ds.attrs['decision']}: {ds.attrs['candidate']} against {ds.attrs['reference']}, {ds.sizes['sample']} samples."


def must(ds: xr.Dataset, metric: str) -> str:
    """What is asked of a metric: ``score ≥ 0.95``, ``ceiling − score ≤ 0.02``."""
    if judged(ds) == "score":
        return f"score ≥ {float(ds['bound'].sel(metric=metric)):.4g}".replace("-", "−")
    return f"ceiling − score ≤ {float(ds.attrs['margin']):.4g}"


def told(ds: xr.Dataset, metric: str) -> str:
    """The decision by a metric with the numbers that it rests on, without a full stop."""
    one, what = ds.sel(metric=metric), judged(ds)
    decision = str(one["decision"].item())
    values = score_text(*interval_of(one.isel(look=-1), what))
    shown = (
        values
        if what == "score"
        else f"{score_text(*interval_of(one.isel(look=-1), 'score'))}, ceiling − score {values}"
    )
    verb = {PASS: "holds", FAIL: "does not hold", OPEN: "cannot be told"}[decision]
    return f"{must(ds, metric)} {verb} ({metric}): score {shown}{_more(ds, metric)}"


def _more(ds: xr.Dataset, metric: str) -> str:
    one = ds.sel(metric=metric)
    if str(one["decision"].item()) != OPEN:
        return ""
    if math.isnan(float(one["score"][-1])):
        return ""  # the images do not depend on the noise: no number of samples would tell
    if math.isnan(more := float(one["more"])):
        return "; too close to tell with a million samples"
    return f"; {'about' if ds.sizes['sample'] > 4 else 'at least'} {more:,.0f} more samples would tell"


def rows(ds: xr.Dataset) -> list[tuple[str, ...]]:
    """A row of `HEAD` for each metric."""
    made: list[tuple[str, ...]] = []
    for metric in reading.names(ds, "metric"):
        one, last = ds.sel(metric=metric), ds.sel(metric=metric).isel(look=-1)
        typical = f"{number(float(one['trimmed_score']))} (10 % trimmed), {number(float(one['median_score']))} (median)"
        ceiling = score_text(*interval_of(last, "ceiling")) if "ceiling" in ds else "not measured"
        share = float(one["worst_share"])
        made.append(
            (
                metric,
                str(one["decision"].item()),
                score_text(*interval_of(last, "score")),
                must(ds, metric),
                ceiling,
                number(float(one["null"].mean())),
                typical,
                "–" if math.isnan(share) else percent(share),
            )
        )
    return made


def note_of(ds: xr.Dataset) -> str:
    """What must be known to read the numbers."""
    return (
        f"Interval: {ds.attrs['interval']}. Score: 1 − mean distance of the same noise / mean distance of other noise (the null). "
        "The lower end allows for failures that have not been seen, of up to two nulls each."
    )


def _numbers(ds: xr.Dataset, metric: str) -> dict[str, Any]:
    one, last = ds.sel(metric=metric), ds.sel(metric=metric).isel(look=-1)
    held = {"bound": float(one["bound"])} if judged(ds) == "score" else {"margin": float(ds.attrs["margin"])}
    intervals = {name: as_value(interval_of(last, name)) for name in ("score", "ceiling", "shortfall") if name in ds}
    means = {name: float(one[name].mean()) for name in ("distance", "null", "again") if name in ds}
    single = {
        name: one[name].item() for name in ("more", "trimmed_score", "median_score", "worst_share", "worst_sample")
    }
    return plain(
        {"decision": str(one["decision"].item()), **held, **intervals, **means, **single, "sentence": told(ds, metric)}
    )
