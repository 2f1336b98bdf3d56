"""`View`: which part of an image is used, at which size, in colour or grey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from consistency_lab.choices import whole
from consistency_lab.errors import UserError

_CHUNK_BYTES = 2**28  # largest temporary while a set of bytes is resized as floats
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what JPEG and PIL call grey


@dataclass(frozen=True)
class View:
    """Grey, then crop, then resize; each only if asked for.

    Args:
        crop: side in pixels of the centred square that is kept; None keeps the whole image.
        size: side in pixels after resizing with antialiasing; of an image that is not square, the largest centred
            square is resized, so that nothing is stretched. None keeps the size.
        grey: one channel, the luma of BT.601, instead of three.

    Raises `UserError` if ``crop`` or ``size`` is not a positive whole number.
    """

    crop: int | None = None
    size: int | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        for option, value in (("crop", self.crop), ("size", self.size)):
            if value is not None:
                whole(f"{option}, in pixels,", value, 1)
        if not isinstance(self.grey, bool):
            raise UserError(f"grey must be True or False, not {self.grey!r}.")

    def apply(self, pixels: torch.Tensor, what: str) -> torch.Tensor:
        """The view of images (N, C, H, W), uint8 or float32 in [-1, 1]; the type stays.

        Raises `UserError`, naming ``what``, for a crop larger than the images or grey of other than 1 or 3 channels.
        """
        if self.grey:
            pixels = _to_grey(pixels, what)
        height, width = pixels.shape[2:]
        if self.crop is not None:
            if self.crop > min(height, width):
                raise UserError(f"cannot crop {self.crop} pixels from {what}, {height}x{width}; give a smaller crop.")
            pixels = _centre(pixels, self.crop)
        if self.size is None:
            return pixels.contiguous()
        pixels = _centre(pixels, min(pixels.shape[2:]))
        return pixels.contiguous() if pixels.shape[2] == self.size else _resize(pixels, self.size)

    def __str__(self) -> str:
        """What was done, to be added to the name of a set: "/crop140/64px/grey"."""
        parts = (self.crop and f"/crop{self.crop}", self.size and f"/{self.size}px", self.grey and "/grey")
        return "".join(part for part in parts if part)


def _centre(pixels: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((extent - side) // 2 for extent in pixels.shape[2:])
    return pixels[:, :, top : top + side, left : left + side]


def _to_grey(pixels: torch.Tensor, what: str) -> torch.Tensor:
    channels = pixels.shape[1]
    if channels not in (1, 3):
        raise UserError(f"grey needs images of 1 or 3 channels; {what} has {channels}.")
    if channels == 1:
        return pixels
    weights = torch.tensor(_LUMA, dtype=torch.float32, device="cpu").view(1, 3, 1, 1)
    return _as_floats(pixels, lambda floats: (floats * weights).sum(1, keepdim=True))


def _resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear with antialiasing: a triangle filter as wide as the scale, which stays in the range of its inputs."""

    def resized(floats: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(floats, (size, size), mode="bilinear", antialias=True)

    return _as_floats(pixels, resized)


def _as_floats(pixels: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A function of float images applied to bytes or floats, in chunks so that a large set of bytes stays small."""
    rows = max(1, _CHUNK_BYTES // (4 * pixels[0].numel()))
    return torch.cat([_like(function(chunk.to(torch.float32)), chunk) for chunk in pixels.split(rows)])


def _like(floats: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    # Weighted means stay inside the range but for rounding in the last bit, which the clamp takes back.
    return floats.round().to(torch.uint8) if original.dtype == torch.uint8 else floats.clamp(-1, 1)
