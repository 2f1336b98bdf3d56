"""RP and GL: do models make copies of each other's images from the same noise, and do they make copies of their training images?

Zhang et al. (2310.05264, section 2): RP is the share of noises from which two models make copies of each other, GL the share of a model's
samples that copy no training image; a copy is an image whose SSCD features have a cosine above 0.6. Both stand and fall with the
embedding: one that calls images of other noise copies too says nothing, so every share stands beside its null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import expit, logit
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import places, plain_defaults, sent
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, described, images_of
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval, add_interval, crossed_jackknife
from consistency_lab.markup import percent
from consistency_lab.metrics.copy_detection import (
    THRESHOLD,
    THRESHOLDS,
    CopyDistance,
    generalisation,
    most_similar,
    proportion_bounds,
    reproducibility,
    sscd,
)
from consistency_lab.pipelines.pairing import agreed
from consistency_lab.similarity.checks import EDGE, MOST_OUTSIDE, check_arguments, counted, outside
from consistency_lab.similarity.labels import agreed_labels, labels_of
from consistency_lab.similarity.pairwise import FAMILY, groups_of
from consistency_lab.similarity.statistics import pairs_of
from consistency_lab.store.results import with_provenance

MOST_BY_CHANCE = (
    0.05  # share of copies among images of other noise, above which the embedding does not tell these images apart
)
_ROWS = 256  # of a table of cosines, or images of the training set, at a time

Embedding = CopyDistance | Callable[[Tensor], Tensor] | str | os.PathLike[str]


def copy_embedding(embedding: Embedding) -> CopyDistance:
    """An embedding from a TorchScript file that is trusted (`sscd`), from a function of images ``(N, C, H, W)`` in [-1, 1], or as it is.

    Raises:
        UserError: a file that is no TorchScript, or something else.
    """
    if isinstance(embedding, CopyDistance):
        return embedding
    if isinstance(embedding, str | os.PathLike):
        return sscd(path=embedding)
    if not callable(embedding):
        raise UserError(
            f"an embedding is a TorchScript file or a function from images to features, not a {type(embedding).__name__}."
        )
    return CopyDistance(embedding, getattr(embedding, "__name__", type(embedding).__name__))


@plain_defaults()
def measure_reproducibility(
    models: Sequence[GenerativeModel],
    embedding: Embedding,
    images: ImageSet | None = None,
    noise: SharedNoise | None = None,
    *,
    count: int | None = None,
    sampler: Sampler | str | None = None,
    labels: Sequence[int] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> xr.Dataset:
    """RP and GL (Zhang et al. 2310.05264) of models under shared noise, with intervals and controls.

    Args:
        models: two or more.
        embedding: gives the features whose cosine says what a copy is: the path of a TorchScript file such as sscd_disc_large (prepared as
            Zhang et al. do), given as ``sscd(path=..., trust=True)``, or any function from images ``(N, C, H, W)`` in [-1, 1] to features
            ``(N, F)``. The path alone does on the command line, with ``--trust``.
        images: the models' training set, for GL; without it there is none.
        noise: ``SharedNoise(0)`` by default.
        count: samples, the images 0 ... count - 1 of the noise, 256 by default; of folders all that they have in common. Zhang et al. take
            10,000.
        sampler: of diffusion models, 50 steps of DDIM by default. RP is defined for deterministic ones.
        labels: what conditional models are asked for in turn, see `compare`; the null is then taken within labels.
        thresholds: cosines above which two images are copies; 0.6, that of Zhang et al., is always among them.

    Returns:
        ``rp (pair, threshold)`` with an interval over noise (Wilson), ``null_rp``, the share of copies among images of other noise, all
        i != j; with three models or more ``family_rp (threshold)`` over models and noise; the cosines ``similarity (pair, sample)``;
        ``outside (model)``, the share of pixels beyond [-1.5, 1.5]. With images ``gl (model, threshold)`` with an interval over samples,
        ``nearest_similarity`` and ``nearest (model, sample)``, and ``training_gl (threshold)``: GL of the training images themselves, the
        first ``count``, beside all others. Kind ``"reproducibility"``; ``warnings`` say where the embedding does not tell the images apart.

    Raises:
        UserError: fewer than two models or samples, images of unlike shapes, features that are no finite matrix.
    """
    check_arguments(models, noise, ("rp",), images)
    if count is not None:
        (count,) = counted(count=count)
    noise = noise or SharedNoise(0)
    agreement = agreed(models, noise, count)
    models, count = agreement.models, agreement.counted(count)
    if len(models) < 2 or count < 2:
        raise UserError(f"reproducibility is of two models and two samples or more, not of {len(models)} and {count}.")
    if not all(-1 <= threshold < 1 for threshold in thresholds):
        raise UserError(f"a copy is a cosine above a threshold from -1 to below 1, not {list(thresholds)}.")
    levels = sorted({*thresholds, THRESHOLD})
    detector, sampler = copy_embedding(embedding), Sampler.of(sampler)
    device = next((model.device for model in models if isinstance(model, DiffusionModel)), torch.device("cpu"))
    asked = None if labels is None and agreement.labels is not None else agreed_labels(models, count, labels)
    under = agreement.labels if asked is None else labels_of(range(count), asked)
    features, exploded = [], []
    for model in models:
        samples = _samples(model, noise, count, sampler, asked)
        features.append(_features(detector, samples, device))
        exploded.append(float(outside(samples).mean()))
    pairs = pairs_of(len(models))
    names = [model.name for model in models]
    result = xr.Dataset(
        coords={
            "model": names,
            "pair": [f"{names[a]} | {names[b]}" for a, b in pairs],
            "threshold": np.array(levels, dtype=float),
            "sample": np.arange(count, dtype=np.int32),
        }
    )
    cosines = torch.stack([1.0 - detector.between(features[a], features[b]) for a, b in pairs])
    _add_over(result, "rp", "pair", [reproducibility(row, levels) for row in cosines])
    result["null_rp"] = (
        ("pair", "threshold"),
        np.array([_by_chance(features[a], features[b], levels, under) for a, b in pairs]),
    )
    result["similarity"] = (("pair", "sample"), cosines.cpu().numpy())
    result.attrs["interval"] = "95 %, Wilson, over noise: these models"
    if len(models) > 2:
        copies = cosines.cpu().numpy()[..., None] > np.array(levels)
        add_interval(result, "family_rp", ("threshold",), _family(copies, len(models)))
        result.attrs["family_interval"] = FAMILY.format(dof=len(models) - 1, count=len(models))
    if images is not None:
        parts = torch.arange(len(images), device="cpu").split(_ROWS)
        training = torch.cat([_features(detector, images.batch(part), device) for part in parts])
        _add_generalisation(result, features, training, levels)
    result["outside"] = ("model", np.array(exploded))
    warnings = [*agreement.said, *_warnings(result, sampler)]
    result.attrs.update(
        note=f"copies: cosine above the threshold, of the features {detector.name}; {detector.note}",
        warnings=json.dumps(warnings),
    )
    facts: dict[str, Any] = {
        "embedding": detector.name,
        "embedding_note": detector.note,
        "samples": count,
        "noise_seed": noise.seed,
    }
    if images is not None:
        facts["data"] = {"name": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    if asked is not None:
        facts["labels"] = list(asked)
    if any(isinstance(model, DiffusionModel) for model in models):
        facts |= {"sampler": sampler.facts, "device": str(device)}
    return with_provenance(
        result, "reproducibility", choices=("threshold",), models=[described(model) for model in models], **facts
    )


def _samples(
    model: GenerativeModel, noise: SharedNoise, count: int, sampler: Sampler, asked: Sequence[int] | None
) -> Tensor:
    if isinstance(model, DiffusionModel):
        return model.generate(noise, range(count), sampler, asked)
    return images_of(model, noise, range(count))


def _features(detector: CopyDistance, images: Tensor, device: torch.device) -> Tensor:
    return detector.embed(sent(images, device))


def _add_over(result: xr.Dataset, name: str, dim: str, rows: Sequence[Interval]) -> None:
    add_interval(result, name, (dim, "threshold"), Interval(*map(np.stack, zip(*rows, strict=True))))


def _cosines_of_others(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """The cosines of rows i of ``a`` with rows j of ``b``, some rows at a time; -inf for j = i."""
    for first in range(0, len(a), _ROWS):
        cosines = 2 * a[first : first + _ROWS] @ b.T
        cosines.diagonal(first).fill_(-torch.inf)
        yield cosines


def _by_chance(a: Tensor, b: Tensor, levels: Sequence[float], labels: np.ndarray | None) -> np.ndarray:
    """The share of copies among samples i of one model and j != i of the other, under the same label where there are any, ``(T,)``."""
    groups = groups_of(labels) or [np.arange(len(a))]
    counts = [
        torch.stack([(cosines > level).sum() for level in levels])
        for here in (places(group, a.device) for group in groups)
        for cosines in _cosines_of_others(a[here], b[here])
    ]
    total = torch.stack(counts).sum(0).cpu().numpy()
    return np.asarray(total / sum(len(group) * (len(group) - 1) for group in groups))


def _family(copies: np.ndarray, models: int) -> Interval:
    """The share over pairs ``(P, N, T)`` with an interval over models and noise, symmetric in its logit and nowhere narrower than Wilson's
    over noise.

    Where all pairs agree that everything is a copy, or nothing, no model that is left out changes anything: the jackknife alone would say
    that the share is certain. Simulated coverage with 3 to 6 models and 64 to 256 samples, shares of .1 to .99: 92 to 99 %.
    """
    pairs, count = pairs_of(models), copies.shape[1]
    rows = np.stack([copies[[k not in pair for pair in pairs]].mean(0) for k in range(models)])  # (K, N, T)
    share = copies.mean((0, 1))
    crossed = crossed_jackknife(share, [(rows.sum(1, keepdims=True) - rows) / (count - 1)])
    spread = share * (1 - share)  # the derivative of the share by its logit
    half = np.divide(crossed.high - share, spread, out=np.zeros_like(share), where=spread > 0)
    wilson = np.array([proportion_bounds(round(each * count), count) for each in share])
    low, high = (expit(logit(share) + sign * half) for sign in (-1, 1))
    return Interval(share, np.minimum(low, wilson[:, 0]), np.maximum(high, wilson[:, 1]))


def _add_generalisation(
    result: xr.Dataset, features: Sequence[Tensor], training: Tensor, levels: Sequence[float]
) -> None:
    """GL of each model, and of the first training images beside the others."""
    found = [most_similar(each, training) for each in features]
    _add_over(result, "gl", "model", [generalisation(cosines, levels) for cosines, _ in found])
    result["nearest_similarity"] = (("model", "sample"), torch.stack([cosines for cosines, _ in found]).cpu().numpy())
    result["nearest"] = (("model", "sample"), torch.stack([index for _, index in found]).cpu().numpy().astype(np.int32))
    if len(training) > 1:
        own = [cosines.amax(1) for cosines in _cosines_of_others(training[: len(features[0])], training)]
        add_interval(result, "training_gl", ("threshold",), generalisation(torch.cat(own), levels))


def _warnings(result: xr.Dataset, sampler: Sampler) -> list[str]:
    said = []
    at = result.sel(threshold=THRESHOLD)
    chance = float(at["null_rp"].max())
    if chance > MOST_BY_CHANCE:
        said.append(
            f"{chance:.0%} of images from other noise count as copies at {THRESHOLD:g}: this embedding does not tell these images apart, "
            "so read RP against that share, or at a higher threshold."
        )
    if "training_gl" in at and float(at["training_gl"]) < 1 - MOST_BY_CHANCE:
        share = 1 - float(at["training_gl"])
        said.append(
            f"{share:.0%} of the training images count as copies of other training images at {THRESHOLD:g}: a low GL need not mean that "
            "models memorise."
        )
    for name, share in result["outside"].to_series().items():
        if share > MOST_OUTSIDE:
            said.append(
                f"{name}: {percent(share)} of all pixels lie outside [-{EDGE}, {EDGE}]; samples that explode alike are alike."
            )
    if sampler.stochastic:
        said.append(
            "RP is defined for deterministic samplers; this one draws noise along the way, the same for all models."
        )
    return said
