"""Inception features as published FIDs use them, through torch-fidelity; nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.devices import measuring
from consistency_lab.errors import UserError
from consistency_lab.inputs import check_archive
from consistency_lab.metrics.base import as_rgb, displayed

INCEPTION = "Inception-v3 features"
_FILE = "weights-inception-2015-12-05-6726825d.pth"  # the end is the start of its SHA-256
_ROWS = 32  # images that pass at a time


class InceptionFeatures:
    """The 2,048 features before Inception's last layer. Images become RGB bytes and are resized to 299 as TensorFlow 1 does.

    Args:
        weights: torch-fidelity's weights; by default in torch's cache.
        device: where the network lives.

    Raises:
        UserError: torch-fidelity or the weights are missing, or the file is not that of published FIDs.
    """

    feature_name = INCEPTION

    def __init__(self, weights: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"):
        extractor = extractor_class("inceptionv3", "FeatureExtractorInceptionV3")
        file = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / _FILE
        _check(file)
        self.device = torch.device(device)
        self.network = extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)).to(
            self.device
        )

    def features(self, images: Tensor) -> Tensor:
        """``(N, 2048)`` float32 of images ``(N, 1 or 3, H, W)``, clamped to [-1, 1]."""
        return through(self.network, images, self.device)


def extractor_class(module: str, name: str) -> Any:
    """A class of torch-fidelity's feature extractors. Raises `UserError` where the package is missing."""
    try:
        return getattr(import_module(f"torch_fidelity.feature_extractor_{module}"), name)
    except ImportError:
        raise UserError(
            "FID needs the package torch-fidelity: pip install torch-fidelity; or measure with the set's classifier."
        ) from None


def through(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """The features ``(N, F)`` of images ``(N, 1 or 3, H, W)`` as RGB bytes, through one of torch-fidelity's extractors."""
    levels = ((as_rgb(displayed(images)) + 1) * 127.5).round().to(torch.uint8)
    with torch.no_grad(), measuring():
        return torch.cat([network(part.to(device))[0] for part in levels.split(_ROWS)])


def _check(file: Path) -> None:
    check_archive(file)
    if not file.is_file():
        raise UserError(
            f"FID needs Inception's weights and there is no file {file}; put torch-fidelity's {_FILE} there, "
            "or measure with the set's classifier."
        )
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(Path(_FILE).stem.rpartition("-")[2]):
        raise UserError(f"{file} is not torch-fidelity's {_FILE}, so no FID can be computed with it; fetch it again.")
    try:
        # torch-fidelity opens the file in a way that would run code that it held. What opens so holds none.
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{file} is truncated or holds more than weights; fetch it again.") from error
