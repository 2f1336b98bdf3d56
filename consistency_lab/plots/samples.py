"""Images on disk: a sheet, single pictures, or their numbers."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.store.atomic import atomic_write


def write_samples(images: Tensor, out: str | Path) -> None:
    """Write images ``(N, C, H, W)`` in [-1, 1]; what lies outside is clamped in pictures and kept in numbers.

    Args:
        images: of 1 (grey) or 3 (RGB) channels for pictures, of any number for ``.npz``.
        out: ``.png``: one sheet, as square as it can be; ``.npz``: the array ``images``, float32; without an ending: a folder with
            0.png, 1.png, ...

    Raises:
        UserError: another ending, or another number of channels for pictures. StoreError: it cannot be written.
    """
    out = Path(out)
    if out.suffix not in ("", ".png", ".npz"):
        raise UserError(f"images are written as a .png sheet, as .npz numbers or into a folder, not as {out.suffix}.")
    if out.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images.float().numpy())
        atomic_write(out, buffer.getvalue())
        return
    if images.shape[1] not in (1, 3):
        raise UserError(f"images of {images.shape[1]} channels have no colours; write their numbers to a .npz file.")
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    if out.suffix == ".png":
        atomic_write(out, _png(_sheet(pixels)))
        return
    for index, each in enumerate(pixels):
        atomic_write(out / f"{index}.png", _png(each))


def _sheet(pixels: np.ndarray) -> np.ndarray:
    """Images ``(N, H, W, C)`` on one ``(rows H, columns W, C)``; empty places are black."""
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = -(-len(pixels) // columns)
    empty = np.zeros((rows * columns - len(pixels), *pixels.shape[1:]), pixels.dtype)
    placed = np.concatenate([pixels, empty]).reshape(rows, columns, *pixels.shape[1:])
    return placed.swapaxes(1, 2).reshape(rows * pixels.shape[1], columns * pixels.shape[2], -1)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()
