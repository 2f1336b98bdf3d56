"""From any array to the tensors that an `ImageSet` holds: pixels (N, C, H, W) uint8 or in [-1, 1], and int64 labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from consistency_lab.errors import UserError

_DARK = 32  # bytes that all stay below this were hardly meant as 0..255


def as_pixels(
    array: Any, name: str, value_range: tuple[float, float] | None = None, channels: str | None = None
) -> torch.Tensor:
    """The array as (N, C, H, W), uint8 where it was uint8 and else float32 in [-1, 1]; see `ImageSet.from_array`."""
    if channels not in (None, "first", "last"):
        raise UserError(
            f"channels of the images {name!r} must be 'first' (N, C, H, W) or 'last' (N, H, W, C), not {channels!r}."
        )
    pixels = _channels_first(name, _as_tensor(array, f"the images {name!r}"), channels)
    return _to_unit_range(name, pixels, value_range).contiguous()


def as_labels(labels: Any, name: str) -> torch.Tensor:
    """The labels as int64. Raises `UserError` unless they are whole numbers."""
    numbers = _as_tensor(labels, f"the labels of {name!r}")
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise UserError(f"the labels of {name!r} must be whole numbers, not {numbers.dtype}.")
    return numbers.to(torch.int64)


def finite_range(pixels: torch.Tensor, name: str) -> tuple[float, float]:
    """The smallest and the largest value. Raises `UserError` for NaN and infinity."""
    low, high = (float(value) for value in torch.aminmax(pixels))  # aminmax hands NaN on
    if not np.isfinite([low, high]).all():
        raise UserError(f"the images {name!r} hold NaN or infinite values; remove those images.")
    return low, high


def _as_tensor(array: Any, what: str) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        if array.is_complex():
            raise UserError(f"{what} must be real numbers, not {array.dtype}.")
        return array.detach().clone()
    try:
        array = np.asarray(array)
    except (TypeError, ValueError):
        raise UserError(
            f"{what} make no array: {type(array).__name__} of items that differ in shape or are no numbers."
        ) from None
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise UserError(f"{what} must be numbers of at most 64 bits, not an array of type {array.dtype}.")
    # A copy in native byte order: torch refuses other orders, negative strides and read-only memory.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def _channels_first(name: str, pixels: torch.Tensor, channels: str | None) -> torch.Tensor:
    shape = tuple(pixels.shape)
    if pixels.numel() == 0:
        raise UserError(f"the image set {name!r} is empty (shape {shape}); give at least one image.")
    if pixels.ndim not in (3, 4):
        raise UserError(f"the images {name!r} have the shape {shape}; give (N, H, W), (N, H, W, C) or (N, C, H, W).")
    if pixels.ndim == 3:
        if shape[0] == 3 or shape[2] in (1, 3):
            raise UserError(
                f"cannot tell whether the shape {shape} of the images {name!r} is one image with its channels or {shape[0]} grey ones; "
                "write array[None] for one image, or array[:, None] with channels='first' for grey ones."
            )
        return pixels[:, None]
    if channels is None:
        first, last = (shape[axis] in (1, 3) for axis in (1, 3))
        # An image of up to 3 pixels per row may as well be rows of a few channels: (N, 2, 1, 1) are points with two coordinates.
        if first == last or (last and shape[2] <= 3):
            raise UserError(
                f"cannot tell which axis of {shape} of the images {name!r} holds the channels; "
                "say channels='first' for (N, C, H, W) or channels='last' for (N, H, W, C)."
            )
        channels = "first" if first else "last"
    return pixels if channels == "first" else pixels.movedim(3, 1)


def _to_unit_range(name: str, pixels: torch.Tensor, value_range: tuple[float, float] | None) -> torch.Tensor:
    if pixels.dtype == torch.uint8 and value_range in (None, (0, 255)):
        largest = int(pixels.max())
        if value_range is None and 0 < largest < _DARK:
            raise UserError(
                f"the images {name!r} are bytes of at most {largest}, nearly black of 0..255: say which values are black and white "
                f"with value_range=(lo, hi), for example (0, {largest}), or (0, 255) if they are that dark."
            )
        return pixels
    if value_range is None and not pixels.is_floating_point():
        raise UserError(
            f"the images {name!r} are {pixels.dtype}: say which values are black and white with value_range=(lo, hi)."
        )
    low, high = finite_range(pixels if pixels.is_floating_point() else pixels.to(torch.float64), name)
    if value_range is None:
        if low < -1 or high > 1 or low >= 0:
            raise UserError(
                f"the images {name!r} have values in [{low:.4g}, {high:.4g}]: say which are black and white with "
                "value_range=(lo, hi), for example (0, 1) or (-1, 1)."
            )
        return pixels.to(torch.float32)
    try:
        black, white = (float(value) for value in value_range)
    except (TypeError, ValueError):
        black = white = 0.0
    if not black < white:
        raise UserError(f"value_range of the images {name!r} must be (lo, hi) with lo < hi, not {value_range}.")
    if low < black or high > white:
        raise UserError(f"the images {name!r} have values in [{low:.4g}, {high:.4g}] outside {value_range=}.")
    return ((pixels.to(torch.float64) - black) / (white - black) * 2 - 1).to(torch.float32)
