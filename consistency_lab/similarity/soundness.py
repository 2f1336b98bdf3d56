"""Are these numbers about what the reader thinks? Whether the samples look like images at all, and whose training set was given.

Images that exploded alike, or hardly left the noise, are alike too: a high score says nothing about models that have learned nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.intervals import Array, Interval, jackknife
from consistency_lab.markup import percent
from consistency_lab.similarity.trajectories import Trajectories

EDGE = 1.5  # images lie in [-1, 1]; x0 estimates that are not clipped overshoot a little
MOST_OUTSIDE = 0.05  # share of pixels beyond the edge; samples of a Gaussian fitted to digits have 0.014 there
_RANGES = ((0.0, 1.0), (-0.5, 0.5), (0.0, 255.0))  # in which images live elsewhere
SPREADS = (0.5, 1.5)  # of the samples' pixels, over that of the data


def add_soundness(result: xr.Dataset, walked: Sequence[Trajectories], images: ImageSet | None) -> None:
    """Add, per model, the share of final pixels outside [-1.5, 1.5] ``outside (model, sample)``, the 1 % and 99 % quantiles of all final
    pixels ``darkest`` and ``brightest (model)``, and the standard deviation of all
    final pixels ``spread (model)`` with its jackknife interval over samples; with a training set, its own ``data_spread``.
    """
    ends = [w.estimates[-1].double().flatten(1).numpy() for w in walked]
    outside = np.stack([(np.abs(x) > EDGE).mean(1) for x in ends])
    result["outside"] = (("model", "sample"), outside.astype(np.float32))
    for name, values in zip(("darkest", "brightest"), zip(*(_bulk(x) for x in ends), strict=True), strict=True):
        result[name] = (("model",), np.array(values))
    spreads = [_spread(x) for x in ends]
    for end, values in zip(("", "_low", "_high"), zip(*spreads, strict=True), strict=True):
        result[f"spread{end}"] = (("model",), np.array(values))
    if images is not None:
        result["data_spread"] = ((), float(images.all().double().std()))


def _spread(x: Array) -> Interval:
    """Standard deviation over all pixels of samples ``(N, D)``, and its interval over samples."""
    count, first, second = len(x), x.mean(1), (x**2).mean(1)
    without = [(total.sum() - total) / (count - 1) for total in (first, second)]
    estimate = np.sqrt(max(second.mean() - first.mean() ** 2, 0.0))
    return jackknife(estimate, np.sqrt(np.maximum(without[1] - without[0] ** 2, 0.0)))


def warnings_of(result: xr.Dataset, models: Sequence[Mapping[str, Any]], images: ImageSet | None, *others: str) -> str:
    """The warnings that belong beside the score, as a JSON list of sentences.

    Args:
        result: after `add_soundness`.
        models: what is known of each (`described`).
        images: the training set that the comparison was given.
        others: sentences that come first; empty ones are passed over.
    """
    said = [sentence for sentence in others if sentence]
    for name, outside in zip(result["model"].values, result["outside"].values, strict=True):
        if (share := float(outside.mean())) > MOST_OUTSIDE:
            said.append(
                f"{name}: {percent(share)} of the pixels of its samples lie outside [-{EDGE}, {EDGE}] and images lie in [-1, 1]; "
                "untrained or diverged models can agree on such samples, so its scores say little. Sampler(clip=True), on the command line "
                "--clip, may be tried: a network that is blind to its input's scale explodes without; but clipping makes models more alike."
            )
    if "data_spread" in result:
        data = float(result["data_spread"])
        for name, value in zip(result["model"].values, result["spread"].values, strict=True):
            if not SPREADS[0] * data <= value <= SPREADS[1] * data:
                said.append(
                    f"{name}: the pixels of its samples have a standard deviation of {value:.3g}, those of the data {data:.3g}; "
                    "the samples do not look like the data, so its scores say little."
                )
    return json.dumps(said + _other_range(result, images) + _other_data(models, images))


def _other_range(result: xr.Dataset, images: ImageSet | None) -> list[str]:
    """Models whose samples look like the data (without it, like the other models' samples) once [0, 1] or the like becomes [-1, 1].

    By the 1 % and 99 % quantiles of their pixels; `add_soundness` has put these into the result.
    """
    bulk = np.stack([result["darkest"].values, result["brightest"].values], axis=1)
    ends = dict(zip(result["model"].values, bulk, strict=True))
    said = []
    for name, own in ends.items():
        if images is not None:
            like, whose = _bulk(images.batch(_some(len(images)), "cpu").flatten().numpy()), f"those of {images.name!r}"
        else:
            # The widest range that images may have here.
            others = [x for other, x in ends.items() if other != name and x[0] < -0.3 and np.abs(x).max() < EDGE]
            widest = min(others, key=lambda x: float(x[0]), default=None)
            like = np.array([-1.0, 1.0]) if widest is None else widest
            whose = "images here" if widest is None else "those of the other models"
        apart = np.abs(own - like).sum()
        for low, high in _RANGES:
            slack = 0.25 * (high - low)  # samples of trained models overshoot
            inside = low - slack <= own[0] and own[1] <= high + slack
            converted = (own - low) / (high - low) * 2 - 1
            if inside and apart > 0.5 and np.abs(converted - like).sum() < 0.8 * min(1.0, apart):
                said.append(
                    f"{name}: its samples lie in [{own[0]:.3g}, {own[1]:.3g}], as images in [{low:g}, {high:g}] do, and {whose} in "
                    f"[{like[0]:.3g}, {like[1]:.3g}]; if it was made for those, give value_range=({low:g}, {high:g}) to wrap_module or "
                    f"wrap_generator, or range={low:g},{high:g} in its address; as it is, its scores are those of other images."
                )
                break
    return said


def _bulk(pixels: Array) -> Array:
    """The 1 % and 99 % quantiles, ``(2,)``."""
    return np.quantile(pixels, (0.01, 0.99))


def _some(count: int) -> Array:
    """At most 1000 of so many indices, evenly spread."""
    return np.linspace(0, count - 1, min(count, 1000)).round().astype(np.int64)


def _other_data(models: Sequence[Mapping[str, Any]], images: ImageSet | None) -> list[str]:
    """Models that were trained on another set than the one that was given."""
    if images is None:
        return []
    prints = {str(m["name"]): (m.get("data") or {}).get("fingerprint") for m in models}
    others = [name for name, known in prints.items() if known not in (None, images.fingerprint)]
    if not others:
        return []
    return [
        f"{', '.join(others)}: trained on other images than {images.name!r} ({len(images)} images); the references and the nearest "
        f"training images are those of {images.name!r}, so they say nothing about what these models learned or copied."
    ]
