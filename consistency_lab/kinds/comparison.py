"""A comparison of models: what a report, a notebook and a folder show of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import interval_of, mean_interval
from consistency_lab.kinds import words
from consistency_lab.kinds.asked import asked_of_each
from consistency_lab.kinds.base import Drawing, Kind, Section, Table
from consistency_lab.kinds.gallery import extremes, gallery
from consistency_lab.kinds.meaning import nearer_reference, worst_sample
from consistency_lab.kinds.numbers import Headline, duration, headline, number, records, score_text, with_interval
from consistency_lab.kinds.sample_view import sample_labels, sample_sentence, sample_view
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots import frames, reading, similarity
from consistency_lab.plots.by_label import SHOWN, by_label_figure, by_label_frame
from consistency_lab.plots.differences import BRIGHTENED, differences_figure, differences_frame
from consistency_lab.plots.gallery import gallery as still
from consistency_lab.plots.possible import drawn_back
from consistency_lab.plots.save import drawn
from consistency_lab.similarity.named import shared_word
from consistency_lab.similarity.quantities import is_scored

COLUMNS = 6  # models beside each other in a table that is not to be wider than the page
FIELDS = {name: name for name in ("network", "predicts", "schedule", "parameters", "seed", "steps", "weights")} | {
    "seconds": "training took"
}
_SCORE_CURVES = (
    "Above: the score; thick with its 95 % interval, all models; thin, each pair; "
    "dotted and dashed, references (mean over models) with their 95 % intervals over noise. "
)


_MARKS = {
    "family": "diamond: all models", "robust": "thin diamonds: typical samples", "plain": "triangle that points down: null over all labels",
    "pair": "open circles: each pair", "null": "cross: null", "ceiling": "triangle: ceiling",
    "reference": "squares: references, mean over models",
}  # fmt: skip
_ALSO = {"ceiling": "the ceiling", "reference": "the references"}


class Comparison(Kind):
    place = 10

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        metric = reading.headline_metric(ds)
        table = frames.overview(ds, metric)
        yield Drawing("gallery", still(ds), table)
        yield _scores(ds, metric, table)
        yield _heatmap(ds, metric, table)
        for name in reading.names(ds, "metric"):
            if ds.sizes["t"] > 1:
                yield _curves(ds, name, table if name == metric else frames.overview(ds, name))
            yield _distribution(ds, name)
            if "label" in ds.coords:
                yield _by_label(ds, name)
        if "extreme_images" in ds:
            yield _differences(ds, metric)

    def sentence(self, ds: xr.Dataset) -> str:
        return headline(ds).sentence

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        metrics = {
            metric: {
                **headline(ds, metric).as_dict(),
                "meaning": nearer_reference(ds, metric),
                "worst": worst_sample(ds, metric),
                "rows": records(frames.overview(ds, metric)),
            }
            for metric in reading.names(ds, "metric")
        }
        return {"headline": headline(ds).as_dict(), "metrics": metrics}

    def section(self, ds: xr.Dataset) -> Section:
        facts, first = words.facts_of(ds), headline(ds)
        metrics = sorted(reading.names(ds, "metric"), key=lambda metric: metric != first.metric)
        pictures = gallery(ds)
        own = {
            "headline": first,
            "score": score_text(first.score, float("nan"), float("nan")),
            "bounds": _bounds(first.low, first.high),
            "plain_words": _plain_words(first, shared_word(ds)),
            "shared": shared_word(ds),
            "names": reading.names(ds, "model"),
            "beside": _beside(ds),
            "meaning": nearer_reference(ds, first.metric),
            "metrics": metrics,
            "panels": [_panel(ds, metric) for metric in metrics],
            "compared": words.compared(ds, facts),
            "machine": words.machine(facts),
            "models": _models(ds, facts),
            "gallery": pictures,
            "extremes": [(metric, extremes(ds, metric)) for metric in metrics] if pictures else [],
            "extremes_of": ds.sizes["sample" if "extreme_images" in ds else "shown"] if pictures else 0,
            "still": still_image(ds) if pictures else "",
            "differences": _differences(ds, first.metric) if "extreme_images" in ds else None,
            "methods": words.methods(ds, facts),
            "caveats": words.caveats(ds, facts),
        }
        places = [
            ("numbers", "Numbers"),
            *([("gallery", "Gallery")] if pictures else []),
            ("pairs", "Pairs"),
            *([("curves", "Along t")] if ds.sizes["t"] > 1 else []),
            ("samples", "Samples"),
            ("models", "Models"),
            ("methods", "Methods and caveats"),
        ]
        models = reading.names(ds, "model")
        of = ", ".join(models) if len(models) == 2 else f"{len(models)} models"
        return Section(f"Comparison: {of}", template="comparison", own=own, places=places)

    def view(self, ds: xr.Dataset) -> View:
        times = tuple(map(float, ds["t"].values))
        samples, metrics = tuple(sample_labels(ds)), tuple(reading.names(ds, "metric"))
        controls = (
            Control("t", "t", times, times[-1]),
            Control("sample", "sample", samples, samples[0]),
            Control("metric", "metric", metrics, reading.headline_metric(ds)),
        )
        return View(controls, lambda **at: (sample_view(ds, **at), sample_sentence(ds, **at)))


def _beside(ds: xr.Dataset) -> str:
    """What stands in the table beside the score: its null, and what else was measured."""
    there = [
        "its null",
        *(["its ceiling"] if "ceiling" in ds else []),
        *(["its references"] if "reference_distance" in ds else []),
    ]
    return " and ".join(filter(None, [", ".join(there[:-1]), there[-1]]))


def _bounds(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"{low:.3f} to {high:.3f}".replace("-", "−")


def _plain_words(first: Headline, shared: str) -> str:
    if np.isnan(first.score):
        return ""
    share = f"{100 * (1 - first.score):.3g} %"
    where, other = (
        ("In the same place", "in other places")
        if shared == "place"
        else ("From the same noise", "from different noise")
    )
    if not (np.isnan(first.low) or np.isnan(first.high)):
        # Values of a score above one are not possible: a share below zero is shown as zero.
        share += f" ({max(0.0, 100 * (1 - first.high)):.3g} to {100 * (1 - first.low):.3g} %)"
    return f"{where}, the {first.metric} between two models' images is {share} of what it is {other}."


def _panel(ds: xr.Dataset, metric: str) -> dict[str, Any]:
    """The parts of a comparison that change with the metric."""
    table = frames.overview(ds, metric)
    return {
        "metric": metric,
        "quantity": reading.quantity(ds, metric),
        "rows": _rows(table[table["group"] != "pair"]),
        "reason": reading.why_undefined(ds, metric) if _is_undefined(table) else "",
        "worst": worst_sample(ds, metric),
        "scores": _scores(ds, metric, table),
        "heatmap": _heatmap(ds, metric, table),
        "curves": _curves(ds, metric, table) if ds.sizes["t"] > 1 else None,
        "distribution": _distribution(ds, metric),
        "by_label": _by_label(ds, metric) if "label" in ds.coords else None,
    }


def _is_undefined(overview: pd.DataFrame) -> bool:
    return bool(overview.loc[overview["group"] == "family", "score"].isna().all())


def _rows(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Name, distance, score and the score's kind of interval, as text."""
    rows = []
    for row in table.to_dict("records"):
        distance, score = with_interval(*interval_of(row, "distance")), score_text(*interval_of(row, "score"))
        rows.append((str(row["name"]), distance, score, str(row["interval"])))
    return rows


def _ranking(ds: xr.Dataset, metric: str, overview: pd.DataFrame) -> str:
    """Which pairs are most and least alike, or nothing where that cannot be said."""
    column = "score" if is_scored(ds, metric) else "distance"
    pairs = overview[overview["group"] == "pair"].dropna(subset=column).sort_values(column)
    if len(pairs) < 2:
        return ""
    return f"Most alike: {pairs['name'].iloc[-1]}; least: {pairs['name'].iloc[0]}."


def _value(ds: xr.Dataset, metric: str) -> str:
    return "consistency score" if is_scored(ds, metric) else reading.quantity(ds, metric)


def _scores(ds: xr.Dataset, metric: str, overview: pd.DataFrame) -> Drawing:
    ranking = _ranking(ds, metric, overview)
    also = "".join(f", {word}" for group, word in _ALSO.items() if group in set(overview["group"]))
    return Drawing(
        f"scores-{metric}",
        similarity.scores(ds, metric),
        overview,
        f"{_value(ds, metric)} at t = 0 of all models, each pair, the null{also}. {ranking}".strip(),
        f"{_marks(overview)}. Lines: 95 % intervals. {ranking}".strip(),
        similarity.scores(ds, metric, narrow=True),
    )


def _marks(overview: pd.DataFrame) -> str:
    """The legend of the marks that are drawn."""
    groups = overview["group"].value_counts()
    there = [group for group in _MARKS if group in groups and not (group == "family" and groups["pair"] == 1)]
    said = "; ".join(_MARKS[group] for group in there)
    return said[0].upper() + said[1:]


def _heatmap(ds: xr.Dataset, metric: str, overview: pd.DataFrame) -> Drawing:
    ranking = _ranking(ds, metric, overview)
    return Drawing(
        f"heatmap-{metric}",
        similarity.heatmap(ds, metric),
        frames.matches(ds, metric),
        f"Table of {_value(ds, metric)} for each model with each model and each reference at t = 0. {ranking}".strip(),
        "Each model with each model"
        + (" (left block) and with each reference (right block)" if "reference_score" in ds else "")
        + ". A dot marks a model with itself, left out. Small: 95 % intervals over samples.",
    )


def _along(ds: xr.Dataset) -> str:
    return "latents" if ds.attrs.get("quantity") == "latents" else "x0 estimates"


def _curves(ds: xr.Dataset, metric: str, overview: pd.DataFrame) -> Drawing:
    scored = is_scored(ds, metric)
    undefined = _is_undefined(overview)
    return Drawing(
        f"curves-{metric}",
        similarity.curves(ds, metric),
        frames.curves(ds, metric),
        f"{reading.quantity(ds, metric)} between {_along(ds)} along t, under the same and under other noise"
        + (", and the score." if scored else "."),
        (_SCORE_CURVES if scored and not undefined else "")
        + ("Below: mean" if scored else "Mean")
        + f" over pairs with 95 % interval over noise.{_parting(ds, metric)}",
    )


def _parting(ds: xr.Dataset, metric: str) -> str:
    """Where pairs part from the ceiling, from the first that does to the last."""
    if "parting_t" not in ds:
        return ""
    table = frames.parting(ds, metric)
    parted = table.dropna().sort_values("t", ascending=False)
    if parted.empty:
        return " No pair parts from its models' ceilings."
    said = f" Parted (further apart than from their own second runs, from there to the end): {_from(parted.iloc[0])}"
    if len(parted) > 1:
        said += f" first, {_from(parted.iloc[-1])} last"
    return f"{said}{f'; {len(table) - len(parted)} of {len(table)} pairs do not' if len(parted) < len(table) else ''}."


def _from(row: pd.Series) -> str:
    return f"{row['pair']} from t = {row['t']:.2f}"


def _distribution(ds: xr.Dataset, metric: str) -> Drawing:
    return Drawing(
        f"distribution-{metric}",
        similarity.distribution(ds, metric),
        frames.distribution(ds, metric),
        f"Distribution of {reading.quantity(ds, metric)} over samples at t = 0, same {shared_word(ds)} "
        "against other, all together and by pair.",
        "Above: every sample of every pair. Below: median, middle 50 % (thick) and middle 95 % (thin) of a pair's "
        "samples; circles and full outline: same {noise}; crosses and dashed outline: other {noise}, each value the "
        "mean over all others.".replace("{noise}", shared_word(ds)),
    )


def _by_label(ds: xr.Dataset, metric: str) -> Drawing:
    table = by_label_frame(ds, metric)
    more = f" The {SHOWN} least alike of {len(table)} are drawn; the data has all." if len(table) > SHOWN else ""
    return Drawing(
        f"labels-{metric}",
        by_label_figure(ds, metric),
        table,
        f"{_value(ds, metric)} of each label, the least alike on top: {table['label'].iloc[0]}.",
        "Mean over pairs, against other noise under the same label. In brackets: samples. Lines: 95 % intervals over a label's noise, "
        f"none for fewer than three samples.{more}",
    )


def _differences(ds: xr.Dataset, metric: str) -> Drawing:
    table = differences_frame(ds, metric)
    first, second = table["first"].iloc[0], table["second"].iloc[0]
    return Drawing(
        "differences",
        differences_figure(ds, metric),
        table,
        f"The images of {first} and {second} that differ most, in the median, and least by {metric}, and where they differ.",
        f"{first} and {second}, the pair that is least alike. Samples are ranked by the mean over all pairs. Above each: "
        f"{reading.quantity(ds, metric)}. {BRIGHTENED}",
    )


def _models(ds: xr.Dataset, facts: words.Facts) -> Table:
    """What is recorded of each model, its own ceiling and its distance to the training images: a column a model while these are few."""
    recorded = {str(model.get("name")): dict(model) for model in words.models_of(facts)}
    names = reading.names(ds, "model")
    told = asked_of_each([dict(recorded.get(name, {})) for name in names])
    for model in recorded.values():
        model |= {"weights": words.weights_name(model)} if model.get("weights") else {}
        model |= {"seed": words.seeds_of(model) or None}
        model |= {"steps": None} if model.get("kind") == "pipeline" else {}  # the solver's: among what it was asked for
    columns: list[tuple[str, list[str]]] = []
    for field, title in FIELDS.items():
        values = [recorded.get(name, {}).get(field) for name in names]
        if any(value is not None for value in values):
            columns.append((title, [_recorded(field, value) for value in values]))
    columns += [(term, texts) for term, texts in told.items() if len(set(texts)) > 1]
    metric = reading.headline_metric(ds)
    if "without_score" in ds:
        left = ds["without_score"].isel(t=-1).sel(metric=metric).values.tolist()
        columns.append((f"score of the others without it, {metric}", [score_text(x, np.nan, np.nan) for x in left]))
    if "ceiling" in ds:
        samples = ds["ceiling"].sel(metric=metric).dropna("sample", how="all").transpose("model", "sample").values
        most = np.inf if is_scored(ds, metric) else None
        columns.append((f"ceiling, {reading.quantity(ds, metric)}", _intervals(samples, most)))
    if "nearest_distance" in ds:
        samples = ds["nearest_distance"].transpose("model", "sample").values
        columns.append(("nearest training image, mean-squared error", _intervals(samples)))
    if "outside" in ds:
        samples = ds["outside"].transpose("model", "sample").values
        columns.append(("share of pixels outside [−1.5, 1.5]", _intervals(samples, 1.0)))
        data = f" (data: {number(float(ds['data_spread']))})" if "data_spread" in ds else ""
        spreads = [with_interval(*each) for each in zip(*interval_of(ds, "spread"), strict=True)]
        columns.append((f"standard deviation of pixels{data}", spreads))
    if len(names) <= COLUMNS:
        return Table(("model", *names), [(title, *values) for title, values in columns])
    return Table(
        ("model", *(title for title, _ in columns)), list(zip(names, *(each for _, each in columns), strict=True))
    )


def _recorded(field: str, value: Any) -> str:
    if value is None:
        return "–"
    if field == "seconds" and isinstance(value, int | float):
        return duration(value)
    # Counts are grouped in threes; a seed is a name, not a count.
    counted = field in ("parameters", "steps") and isinstance(value, int)
    return f"{value:,}".replace(",", "\u202f") if counted else str(value)


def _intervals(samples: np.ndarray, most: float | None = np.inf) -> list[str]:
    """Means of (model, sample) with their intervals; ``most``: of what lies between zero and that, None for what has no bounds."""
    found = mean_interval(samples)
    means, lows, highs = found if most is None else drawn_back(found, 0.0, most)
    return [with_interval(float(a), float(b), float(c)) for a, b, c in zip(means, lows, highs, strict=True)]


def still_image(ds: xr.Dataset) -> str:
    """The final images as a PNG data URI, for readers without scripts."""
    png = drawn(still(ds, columns=8), "png", dpi=80, facecolor="white")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
