"""LPIPS (Zhang et al. 1801.03924) as features: d(x, y) = |phi(x) - phi(y)|^2, so K models cost K passes through the trunk.

LPIPS is sum_l mean_hw sum_c w_lc (f_lc(x) - f_lc(y))^2 over unit-normalised activations f_l, hence the squared distance of
phi(x) = concat_l sqrt(w_l / (H_l W_l)) f_l(x). Trunk classes, activations and heads (version 0.1) are those of the lpips package.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from consistency_lab.devices import hand_back, measuring, random_state
from consistency_lab.errors import UserError
from consistency_lab.inputs import check_archive
from consistency_lab.metrics.base import SquaredDistance, as_rgb, displayed

_PIXELS = 2**18  # that pass through a trunk at a time
# The shortest side for which every layer has an output, and torchvision's file, whose name ends in the start of its SHA-256.
_TRUNKS = {
    "alex": (31, "alexnet-owt-7be5be79.pth"),
    "vgg": (16, "vgg16-397923af.pth"),
    "squeeze": (17, "squeezenet1_1-b8a52dc0.pth"),
}


class FeatureDistance(SquaredDistance):
    """The squared distance of a trunk's weighted activations.

    Grey images are made RGB, estimates are clamped to [-1, 1] for the trunk alone, and images with a side too short for the trunk are
    enlarged (bilinear) until it is the least one.

    An embedding holds every activation of the trunk in float32: at 32x32 5,760 values (alex), 24,768 (squeeze) or 124,928 (vgg) an
    image, growing with the pixels. 1,000 images of 32x32 through vgg are 0.5 GB per model and noise level.

    Args:
        network: an ``lpips.LPIPS``.
        trunk: "alex", "vgg" or "squeeze".
        name: "lpips-..." for trained weights alone; anything else for a random trunk, which is no LPIPS.
        source: where the weights are from, for the note.
    """

    def __init__(self, network: Any, trunk: str, name: str, source: str):
        self.network, self.name, self.least = network.eval().requires_grad_(False), name, _TRUNKS[trunk][0]
        self.unit = f"LPIPS, {trunk}" if name.startswith("lpips") else f"weighted squared features, {trunk}"
        self.note = (
            f"{source}; grey is made RGB, values are clamped to [-1, 1], "
            f"sides below {self.least} pixels are enlarged to {self.least} (bilinear)"
        )

    def embed(self, images: Tensor) -> Tensor:
        shown = as_rgb(displayed(images).float())
        shortest = min(shown.shape[-2:])
        if shortest < self.least:
            height, width = (round(side * self.least / shortest) for side in shown.shape[-2:])
            shown = F.interpolate(shown, (height, width), mode="bilinear", align_corners=False)
        rows = max(1, _PIXELS // (shown.shape[-2] * shown.shape[-1]))
        self.network.to(shown.device)
        with torch.no_grad(), measuring():
            first, *others = shown.split(rows)
            layers = self._layers(first)
            if not others:
                return torch.cat(layers, dim=1)
            # Of large images an embedding is large: it is filled layer by layer, and nothing else is held.
            widths = [layer.shape[1] for layer in layers]
            whole = layers[0].new_empty(len(shown), sum(widths))
            for number, part in enumerate([first, *others]):
                layers = self._layers(part) if number else layers
                for into, layer in zip(
                    whole[number * rows : (number + 1) * rows].split(widths, 1), layers, strict=True
                ):
                    into.copy_(layer)
                del layers[:]
                hand_back()
            return whole

    def _layers(self, images: Tensor) -> list[Tensor]:
        """What each layer adds to the embedding, ``(B, F_l)``."""
        network, parts = self.network, []
        found = list(network.net(network.scaling_layer(images)))
        for head in network.lins:
            activations = found.pop(0)
            # The package's normalize_tensor: its epsilon stands beside the root, not under it.
            unit = activations / (activations.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
            weight = head.model[-1].weight / (activations.shape[-2] * activations.shape[-1])
            parts.append(unit.mul_(weight.clamp_min(0.0).sqrt()).flatten(1))
        return parts


def lpips_distance(
    trunk: str, *, weights: str | os.PathLike[str] | None = None, rounded: bool = False
) -> FeatureDistance:
    """LPIPS with a trunk trained on ImageNet. Nothing is downloaded.

    Args:
        trunk: "alex", "vgg" or "squeeze".
        weights: a file of the trunk's weights under torchvision's key names; by default torchvision's own in torch's cache.
        rounded: the weights were rounded, as a file with "rounded" in its name says too.

    Returns:
        a distance called "lpips-<trunk>"; "-rounded" is added for rounded weights, and "-unverified" where the file is not
        torchvision's by its SHA-256, since only that one makes the published metric.

    Raises:
        UserError: no weights, weights of another network, or a torchvision that does not match torch.
    """
    published = _TRUNKS[trunk][1]
    file = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / published
    check_archive(file)
    if not file.is_file():
        option = f"lpips-{trunk}(weights='FILE')"
        raise UserError(
            f"LPIPS ({trunk}) needs its trunk's weights; there is no file {file}: put torchvision's {published} there or write {option}, "
            "or leave lpips out: the other metrics work without it."
        )
    network = random_network(trunk)
    _load_trunk(network.net, file, trunk)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if rounded or "rounded" in file.name:
        suffix = "-rounded"
    else:
        suffix = "" if digest.startswith(Path(published).stem.rpartition("-")[2]) else "-unverified"
    return FeatureDistance(network, trunk, f"lpips-{trunk}{suffix}", f"weights {file.name}, SHA-256 {digest[:12]}")


def lpips_alex(*, weights: str | None = None, rounded: bool = False) -> FeatureDistance:
    """LPIPS with AlexNet, its authors' choice for comparing; see `lpips_distance`."""
    return lpips_distance("alex", weights=weights, rounded=rounded)


def lpips_vgg(*, weights: str | None = None, rounded: bool = False) -> FeatureDistance:
    """LPIPS with VGG16; see `lpips_distance`."""
    return lpips_distance("vgg", weights=weights, rounded=rounded)


def lpips_squeeze(*, weights: str | None = None, rounded: bool = False) -> FeatureDistance:
    """LPIPS with SqueezeNet 1.1; see `lpips_distance`."""
    return lpips_distance("squeeze", weights=weights, rounded=rounded)


def random_network(trunk: str, seed: int = 0) -> Any:
    """The package's ``LPIPS`` with trained heads on a random trunk, which is no LPIPS until trained weights are loaded.

    Raises:
        UserError: lpips or torchvision is missing, or torchvision does not match torch.
    """
    try:
        lpips = import_module("lpips")
    except ImportError as error:
        raise UserError(
            f"LPIPS needs the packages lpips and torchvision ({error}): pip install lpips torchvision."
        ) from None
    except RuntimeError:  # "operator torchvision::nms does not exist"
        raise UserError(
            f"torchvision {metadata.version('torchvision')} was built for another torch than {metadata.version('torch')}; "
            "install versions of torch and torchvision that were released together."
        ) from None
    with warnings.catch_warnings(), random_state(seed):
        warnings.simplefilter("ignore")  # the package still writes pretrained=False
        return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)


def _load_trunk(trunk: torch.nn.Module, file: Path, name: str) -> None:
    """Fill the package's slices ("slice2.3.squeeze.weight") from torchvision's keys ("features.3.squeeze.weight")."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{file} is truncated or holds no weights; give a state dict that torch.save wrote.") from error
    chosen = {}
    for key, wanted in trunk.state_dict().items():
        source = "features." + key.split(".", 1)[1]
        found = state.get(source) if isinstance(state, dict) else None
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            raise UserError(
                f"{file} holds no weights of torchvision's trunk for lpips-{name}: {source} of shape {tuple(wanted.shape)} is missing."
            )
        chosen[key] = found.float()
    trunk.load_state_dict(chosen)
