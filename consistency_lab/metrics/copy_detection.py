"""Copies: the cosine of an embedding's features, and what follows from it, reproducibility and generalisation.

Reproducibility (RP) is the share of same-noise pairs whose similarity exceeds a threshold, generalisation (GL) the share of samples with
no such training image (Zhang et al. 2310.05264, who take SSCD features, Pizzi et al. 2202.10261, and 0.6).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from consistency_lab.devices import measuring
from consistency_lab.errors import UserError, nearest_path
from consistency_lab.inputs import check_archive
from consistency_lab.intervals import Interval
from consistency_lab.metrics.base import SquaredDistance, as_rgb, displayed
from consistency_lab.metrics.pixels import half_unit
from consistency_lab.packing import packing_holds
from consistency_lab.trust import check_trust, trusting

THRESHOLD = 0.6  # of Zhang et al.
THRESHOLDS = (0.3, 0.4, 0.5, THRESHOLD, 0.7, 0.8, 0.9)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
_ROWS = 32  # images that pass through an embedding at a time


class CopyDistance(SquaredDistance):
    """1 - cosine of the features of two images, from 0 to 2; estimates are clamped to [-1, 1].

    Args:
        features: images ``(N, C, H, W)`` float32 in [-1, 1] -> features ``(N, F)`` of any norm, each image by itself.
        name: how results call it.
        note: what a reader must know of the features.
    """

    unit = "1 - cosine of features, from 0 to 2"

    def __init__(self, features: Callable[[Tensor], Tensor], name: str, note: str = "values are clamped to [-1, 1]"):
        self.features, self.name, self.note = features, name, note

    def embed(self, images: Tensor) -> Tensor:
        """Features of norm 1 / sqrt(2), ``(N, F)`` float64. Raises `UserError` if they are no such matrix or not finite."""
        with torch.no_grad(), measuring():
            found = torch.cat([self.features(part) for part in displayed(images).float().split(_ROWS)])
        fits = found.ndim == 2 and len(found) == len(images)
        norms = found.norm(dim=1) if fits else found.flatten()
        finite, directed = torch.stack([found.isfinite().all(), norms.all()]).tolist()  # a GPU is waited for once
        if not fits or not finite:
            raise UserError(
                f"the features of {self.name} must be finite and of shape ({len(images)}, F), not {tuple(found.shape)}."
            )
        if not directed:
            raise UserError(
                f"the features of {self.name} are all 0 for image {int((norms == 0).nonzero()[0])}, and have no direction; give others."
            )
        return half_unit(found.double())

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine of images i of ``a`` and ``b``, ``(N,)``: what `reproducibility` takes."""
        return 1.0 - self.between(self.embed(a), self.embed(b))


def sscd(*, path: str | os.PathLike[str], size: int = 320, square: bool = True, trust: bool = False) -> CopyDistance:
    """Copy detection with a TorchScript file, as published for SSCD: ImageNet's mean and deviation, bilinear with antialiasing.

    Such a file is a program, which may read and write files when it runs. Without one, a `CopyDistance` of any function will do.

    Args:
        path: the file, for example sscd_disc_large.torchscript.pt (the choice of Zhang et al.) or sscd_disc_mixup (its authors').
        size: pixels; 320 with ``square`` as Zhang et al., 288 without for the shorter side as its authors advise.
        square: resize to size x size; otherwise the shorter side to size.
        trust: whether the file may run. A text that names the metric cannot say so.

    Returns:
        a distance called after the file, if that is one of SSCD's, else "copies-<file>".

    Raises:
        UserError: the file is not trusted, no TorchScript at ``path``, or a size below 1.
    """
    if size < 1:
        raise UserError(f"the size that images are resized to must be at least 1 pixel, not {size}.")
    file = Path(path)
    with trusting(trust):
        network = _open(file)
    title = file.name.split(".")[0]
    name = title if title.startswith("sscd_") else f"copies-{title}"
    shape = f"{size}x{size}" if square else f"a shorter side of {size}"
    note = f"images are made RGB, clamped to [-1, 1] and resized to {shape} pixels (bilinear, antialiased)"

    def features(images: Tensor) -> Tensor:
        network.to(images.device)
        return network(prepare(images, size, square))

    return CopyDistance(features, name, note)


def prepare(images: Tensor, size: int, square: bool) -> Tensor:
    """Images in [-1, 1] as networks trained on ImageNet want them: RGB, resized in [0, 1], normalised; on the images' device."""
    height, width = images.shape[-2:]
    scale = size / min(height, width)
    target = (size, size) if square else (round(height * scale), round(width * scale))
    shown = F.interpolate((as_rgb(images) + 1) / 2, target, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(x, device=images.device).view(1, 3, 1, 1) for x in (_MEAN, _STD))
    return (shown - mean) / std


def _open(file: Path) -> torch.jit.ScriptModule:
    check_archive(file)
    if not file.is_file():
        raise UserError(
            f"there is no file {file}; give the path of a TorchScript embedding, such as SSCD's.{nearest_path(file)}"
        )
    check_trust(file, "TorchScript", "give CopyDistance a function of yours with weights from safetensors")
    if not packing_holds(file):
        raise UserError(f"{file} is truncated, damaged or is not TorchScript; name a file that torch.jit.save wrote.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.export is to be used instead; it does not open these files
            return torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:
        raise UserError(f"{file} is truncated or is not TorchScript; name a file that torch.jit.save wrote.") from error


def reproducibility(similarities: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Interval:
    """RP: the share of same-noise pairs more similar than each threshold, with a 95 % Wilson interval over noise.

    Args:
        similarities: cosines ``(N,)`` of image i of one model and image i of another.
        thresholds: ``(T,)``.

    Returns:
        estimate and bounds, each ``(T,)``.

    Raises:
        UserError: no similarities, or some that are not finite.
    """
    return _shares(similarities, thresholds, above=True)


def generalisation(similarities: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Interval:
    """GL: 1 - P[the most similar training image exceeds the threshold], with a 95 % Wilson interval over samples.

    Args:
        similarities: of each sample to its most similar training image, ``(N,)``, from `most_similar`.
        thresholds: ``(T,)``.

    Raises `UserError` as `reproducibility`.
    """
    return _shares(similarities, thresholds, above=False)


def most_similar(samples: Tensor, training: Tensor, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """The cosine of each sample to its most similar training image, ``(N,)`` float64, and that image's index ``(N,)``.

    Args:
        samples, training: embeddings by `CopyDistance.embed`, ``(N, F)`` and ``(M, F)``.
        chunk: training images at a time; memory is N x chunk.
    """
    best = torch.full((len(samples),), -torch.inf, dtype=torch.float64, device=samples.device)
    index = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
    for first in range(0, len(training), chunk):
        cosines = 2 * samples.double() @ training[first : first + chunk].to(samples.device).double().T
        largest, where = cosines.max(1)
        closer = largest > best
        best, index = torch.where(closer, largest, best), torch.where(closer, where + first, index)
    return best.clamp(-1.0, 1.0), index


def _shares(similarities: Tensor, thresholds: Sequence[float], above: bool) -> Interval:
    values = similarities.flatten().double().cpu()
    if len(values) == 0 or not values.isfinite().all():
        raise UserError("a share of similar images needs one finite similarity or more.")
    rows = []
    for threshold in thresholds:
        count = int(((values > threshold) == above).sum())
        rows.append((count / len(values), *proportion_bounds(count, len(values))))
    return Interval(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)


def proportion_bounds(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion."""
    bounds = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)
