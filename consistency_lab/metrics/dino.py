"""DINOv2 features (Oquab et al. 2304.07193) through torch-fidelity, from files that lie in a folder; nothing is downloaded.

torch-fidelity builds the network with torch.hub, from a checkout of the authors' repository and a file of weights in torch's hub folder.
Both must be there before it is asked. The code of that checkout is run: take it from where you trust it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.metrics.inception import extractor_class, through
from consistency_lab.trust import check_trust, trusting

SIZES = {"s": 384, "b": 768, "l": 1024, "g": 1536}  # of the ViT, with patches of 14 pixels, and its number of features
_CODE = ("facebookresearch_dinov2_main", "facebookresearch_dinov2_master")  # as torch.hub calls its checkouts


class DinoFeatures:
    """The class token of DINOv2. Images become RGB bytes and are resized to 224 as TensorFlow 1 does, which is torch-fidelity's way.

    Args:
        folder: laid out as torch's hub folder, which is the default: ``facebookresearch_dinov2_main/``, a checkout of the repository, and
            ``checkpoints/dinov2_vits14_pretrain.pth``.
        size: "s", "b", "l" or "g" of the network; the file of weights is called after it.
        device: where the network lives.
        trust: whether the code of the checkout may run.

    Raises:
        UserError: torch-fidelity, the checkout or the weights are missing, the checkout is not trusted, or the file holds more than
            weights.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        size: str = "s",
        device: str | torch.device = "cpu",
        trust: bool = False,
    ):
        if size not in SIZES:
            raise UserError(f"DINOv2 has the sizes {', '.join(SIZES)}, not {size!r}.")
        extractor = extractor_class("dinov2", "FeatureExtractorDinoV2")
        place = Path(torch.hub.get_dir() if folder is None else folder)
        with trusting(trust):
            _check(place, f"dinov2_vit{size}14_pretrain.pth")
        self.feature_name, self.device = f"DINOv2 ViT-{size.upper()}/14 features", torch.device(device)
        before = torch.hub._hub_dir  # None where TORCH_HOME is to be followed; set_dir(get_dir()) would end that
        torch.hub.set_dir(place)
        try:
            self.network = extractor(f"dinov2-vit-{size}-14", ["dinov2"]).to(self.device)
        finally:
            torch.hub._hub_dir = before

    def features(self, images: Tensor) -> Tensor:
        """``(N, F)`` float32 of images ``(N, 1 or 3, H, W)``, clamped to [-1, 1]."""
        return through(self.network, images, self.device)


def _check(place: Path, name: str) -> None:
    file = place / "checkpoints" / name
    if not any((place / code / "hubconf.py").is_file() for code in _CODE) or not file.is_file():
        raise UserError(
            f"DINOv2 needs a checkout of its repository in {place / _CODE[0]} and its weights in {file}; put both there, "
            "or measure with the set's classifier."
        )
    check_trust(place, "a checkout of DINOv2's repository", "measure with the set's classifier")
    try:
        torch.load(file, map_location="cpu", weights_only=True)  # what opens so holds no code that would be run
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{file} is truncated or holds more than weights; fetch it again.") from error
