"""What a comparison checks and says besides its scores: arguments, values that are not finite, samples that are no images, foreign data,
and the samples on which models agree most and least.

Images that exploded alike, or hardly left the noise, are alike too: a high score says nothing about models that have learned nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import check_generative
from consistency_lab.diffusion.noise import check_noise
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, Interval, add_interval, jackknife, stacked
from consistency_lab.markup import percent
from consistency_lab.similarity.quantities import higher_is_alike
from consistency_lab.similarity.trajectories import Trajectories


def counted(**counts: object) -> list[int]:
    """Numbers of samples, levels and the like, as ints. Raises `UserError` for what is no whole number, or below 0, by name."""
    return [whole(name, value) for name, value in counts.items()]


def check_arguments(models: object, noise: object, metrics: object, images: object) -> None:
    """Raise `UserError` unless there are a sequence of models, shared noise, one metric or more, and an image set or None."""
    if not isinstance(models, Sequence) or isinstance(models, str):
        raise UserError(f"models are given as a list, not as {type(models).__name__}; write compare([a, b], ...).")
    for model in models:
        check_generative(model)
    check_noise(noise)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        given = repr(metrics) if isinstance(metrics, str) else "metric"
        raise UserError(f"metrics are given as a list; write metrics=[{given}].")
    if not metrics:
        raise UserError(
            "a comparison needs at least one metric, for example 'mse'; see `consistency-lab list metrics`."
        )
    if images is not None:
        check_set(images)


MOST_LOST = 0.5  # a model that loses more of its samples is left out itself, rather than everybody's samples
_NAMED = 20  # places that are recorded one by one


class Kept(NamedTuple):
    """What is left: indices of models and of samples, the places that were lost, and a sentence for the reader (empty: nothing was)."""

    models: list[int]
    samples: list[int]
    lost: list[dict[str, object]]
    warning: str


def finite_part(walks: Sequence[Trajectories], times: Tensor, others: Sequence[tuple[int, Trajectories]] = ()) -> Kept:
    """Which models and samples can be compared: `kept_of` of `not_finite`.

    Raises:
        UserError: fewer than two models or two samples would be left; the first place is named.
    """
    return kept_of([w.name for w in walks], times, *not_finite(walks, others))


def not_finite(
    walks: Sequence[Trajectories], others: Sequence[tuple[int, Trajectories]] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Where values are not finite: of each model's own walk ``(K, T, N)``, and of any walk ``(K, N)``.

    Args:
        walks: of each model.
        others: further walks (with another step count, or on the alignment of a pair), each with its model's index: their samples must be
            finite too.
    """
    bad = _bad(walks).cpu().numpy()
    lost = np.asarray(bad.any(1))
    for k, walk in others:
        lost[k] |= _bad([walk])[0].any(0).cpu().numpy()
    return bad, lost


def _bad(walks: Sequence[Trajectories]) -> Tensor:
    """``(K, T, N)``."""
    return torch.stack([~w.estimates.flatten(2).isfinite().all(2) for w in walks])


def kept_of(names: Sequence[str], times: Tensor, bad: np.ndarray, lost: np.ndarray) -> Kept:
    """Which models and samples can be compared.

    A sample at which some model has a value that is not finite is left out for every model, since distances need both; a model with more
    than `MOST_LOST` of such samples is left out instead.

    Args:
        names: of the models.
        times: ``(T,)`` of their estimates.
        bad, lost: of `not_finite`, of all samples.

    Raises:
        UserError: fewer than two models or two samples would be left; the first place is named.
    """
    dropped = np.asarray(lost.mean(1) > MOST_LOST)
    models = np.flatnonzero(~dropped).tolist()
    samples = np.flatnonzero(~lost[~dropped].any(0)).tolist()
    if not lost.any():
        return Kept(models, samples, [], "")
    places = [_place(names[k], bad[k, :, i], times, i) for k, i in np.argwhere(lost).tolist()]
    first = places[0]
    if len(models) < 2 or len(samples) < 2:
        raise UserError(
            f"the model {first['model']!r} gives values that are not finite{_at(first['t'])} for sample {first['sample']}, and without "
            f"such values {len(models)} models and {len(samples)} samples are left of {len(names)} and {lost.shape[1]}; leave the model "
            "out or train it again."
        )
    gone = [f"{names[k]} ({int(lost[k].sum())} of its samples)" for k in np.flatnonzero(dropped).tolist()]
    said = [f"left out for values that are not finite: {', '.join(gone)}"] if gone else []
    if rest := lost.shape[1] - len(samples):
        culprits = ", ".join(names[k] for k in models if lost[k].any())
        said.append(
            f"{rest} of {lost.shape[1]} samples are left out for all models, because {culprits} gave values that are not finite"
        )
    return Kept(
        models, samples, places[:_NAMED], f"{'; '.join(said)}. First at {first['model']}, sample {first['sample']}."
    )


def _place(name: str, bad: np.ndarray, times: Tensor, sample: int) -> dict[str, object]:
    """t is None where only another walk than the model's own failed."""
    where = np.flatnonzero(bad)
    return {"model": name, "t": round(float(times[where[0]]), 4) if len(where) else None, "sample": sample}


def _at(t: object) -> str:
    return " on another grid of times" if t is None else f" at t = {t:.3g}"


EDGE = 1.5  # images lie in [-1, 1]; x0 estimates that are not clipped overshoot a little
MOST_OUTSIDE = 0.05  # share of pixels beyond the edge; samples of a Gaussian fitted to digits have 0.014 there
_RANGES = ((0.0, 1.0), (-0.5, 0.5), (0.0, 255.0))  # in which images live elsewhere
SPREADS = (0.5, 1.5)  # of the samples' pixels, over that of the data


def sanity_measured(walked: Sequence[Trajectories], stride: int = 1) -> dict[str, Any]:
    """Of each final image the share of pixels outside [-1.5, 1.5] and its first two moments ``(model, sample)``; and the pixels themselves,
    or every ``stride``-th of them ``(model, pixel)``.
    """
    last = [w.estimates[-1].cpu() for w in walked]
    ends = [each.double().flatten(1).numpy() for each in last]
    both = ("model", "sample")
    return {
        "outside": (both, np.stack([outside(each) for each in last])),
        "first_moment": (both, np.stack([x.mean(1) for x in ends])),
        "second_moment": (both, np.stack([(x**2).mean(1) for x in ends])),
        "pixels": (("model", "pixel"), np.stack([x.reshape(-1)[::stride] for x in ends])),
    }


def add_sanity_checks(result: xr.Dataset, measured: Mapping[str, Any], images: ImageSet | None) -> None:
    """Add, per model, the share of final pixels outside [-1.5, 1.5] ``outside (model, sample)``, the 1 % and 99 % quantiles of all final
    pixels ``darkest`` and ``brightest (model)``, and the standard deviation of all
    final pixels ``spread (model)`` with its jackknife interval over samples; with a training set, its own ``data_spread``.

    Args:
        result: gets the variables.
        measured: of `sanity_measured`.
        images: the training set, or None.
    """
    result["outside"] = (("model", "sample"), measured["outside"][1].astype(np.float32))
    ends = zip(*(_bulk(pixels) for pixels in measured["pixels"][1]), strict=True)
    for name, values in zip(("darkest", "brightest"), ends, strict=True):
        result[name] = (("model",), np.array(values))
    moments = zip(measured["first_moment"][1], measured["second_moment"][1], strict=True)
    add_interval(result, "spread", ("model",), stacked(_spread(*each) for each in moments))
    if images is not None:
        result["data_spread"] = ((), float(images.all().double().std()))


def outside(images: Tensor) -> Array:
    """The share of each image's values beyond [-1.5, 1.5] ``(N,)``."""
    return (np.abs(images.double().flatten(1).cpu().numpy()) > EDGE).mean(1)


def _spread(first: Array, second: Array) -> Interval:
    """Standard deviation over all pixels of samples, from each one's moments ``(N,)``, and its interval over samples."""
    count = len(first)
    without = [(total.sum() - total) / (count - 1) for total in (first, second)]
    estimate = np.sqrt(max(second.mean() - first.mean() ** 2, 0.0))
    return jackknife(estimate, np.sqrt(np.maximum(without[1] - without[0] ** 2, 0.0)))


def warnings_of(result: xr.Dataset, models: Sequence[Mapping[str, Any]], images: ImageSet | None, *others: str) -> str:
    """The warnings that belong beside the score, as a JSON list of sentences.

    Args:
        result: after `add_sanity_checks`.
        models: what is known of each (`described`).
        images: the training set that the comparison was given.
        others: sentences that come first; empty ones are passed over.
    """
    said = [sentence for sentence in others if sentence]
    flat = _flat(result)
    said += [
        f"{name}: almost all pixels of its samples have one and the same value, {value:.3g}; it gives no images (a black or grey image is "
        "what pipelines make of values that are not finite), so its scores say nothing."
        for name, value in flat.items()
    ]
    latent = {str(model["name"]) for model in models if model.get("space") == "latents"}  # which have no range
    for name, outside in zip(result["model"].values, result["outside"].values, strict=True):
        if str(name) not in latent and (share := float(outside.mean())) > MOST_OUTSIDE:
            said.append(
                f"{name}: {percent(share)} of the pixels of its samples lie outside [-{EDGE}, {EDGE}] and images lie in [-1, 1]; "
                "untrained or diverged models can agree on such samples, so its scores say little. sampler='ddim(clip=True)' "
                "(--sampler) may be tried: a network that is blind to its input's scale explodes without; but clipping makes models more "
                "alike."
            )
    if "data_spread" in result:
        data = float(result["data_spread"])
        for name, value in zip(result["model"].values, result["spread"].values, strict=True):
            if not SPREADS[0] * data <= value <= SPREADS[1] * data:
                said.append(
                    f"{name}: the pixels of its samples have a standard deviation of {value:.3g}, those of the data {data:.3g}; "
                    "the samples do not look like the data, so its scores say little."
                )
    ranges = [] if latent else _other_range(result, images)
    return json.dumps(said + ranges + _other_data(models, images))


def _flat(result: xr.Dataset) -> dict[str, float]:
    """The models whose 1 % and 99 % quantiles of all pixels are one value, and that value."""
    ends = zip(result["model"].values, result["darkest"].values, result["brightest"].values, strict=True)
    return {str(name): float(low) for name, low, high in ends if low == high}


def _other_range(result: xr.Dataset, images: ImageSet | None) -> list[str]:
    """Models whose samples look like the data (without it, like the other models' samples) once [0, 1] or the like becomes [-1, 1].

    By the 1 % and 99 % quantiles of their pixels; `add_sanity_checks` has put these into the result.
    """
    bulk = np.stack([result["darkest"].values, result["brightest"].values], axis=1)
    ends = dict(zip(result["model"].values, bulk, strict=True))
    said = []
    flat = _flat(result)
    for name in flat:
        del ends[name]  # which have no range, and tell none
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
    data = {str(m["name"]): m.get("data") or {} for m in models}
    flipped = [name for name, of in data.items() if "mirrored" in of and of["fingerprint"] == images.fingerprint]
    others = [
        name for name, of in data.items() if of.get("mirrored", of.get("fingerprint")) not in (None, images.fingerprint)
    ]
    others = [name for name in others if name not in flipped]
    said = []
    if flipped:
        said.append(
            f"{', '.join(flipped)}: trained with flip=True, so on the mirror images of {images.name!r} too, which the references and the "
            "nearest training images leave out; give compare the set's mirrored()."
        )
    if others:
        said.append(
            f"{', '.join(others)}: trained on other images than {images.name!r} ({len(images)} images); the references and the nearest "
            f"training images are those of {images.name!r}, so they say nothing about what these models learned or copied."
        )
    return said


def ranked(result: xr.Dataset, metric: str) -> np.ndarray:
    """The places of the samples of a comparison ``(sample,)``, most consistent first: by the mean over pairs at the last time."""
    mean = result["distance"].isel(t=-1).sel(metric=metric).mean("pair").values
    return np.argsort(-mean if higher_is_alike(result, metric) else mean, kind="stable")


def extremes_of(result: xr.Dataset, count: int = 4) -> list[int]:
    """The places of the ``count`` samples (at most half of all) at either end of every metric of a comparison, and of the median one,
    each once, in order.
    """
    count = min(count, result.sizes["sample"] // 2)
    places: set[int] = set()
    for metric in result["metric"].values:
        order = ranked(result, metric)
        places |= {int(i) for i in (*order[:count], order[len(order) // 2], *order[len(order) - count :])}
    return sorted(places)
