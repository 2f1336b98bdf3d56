"""A row of images as one small PNG."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

HEIGHT = 48  # pixels that an image is shown at, at least


def strip(images: torch.Tensor) -> bytes:
    """Images ``(N, C, H, W)`` in [-1, 1], one or three channels, side by side as a PNG; small ones enlarged by a whole factor."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    factor = max(1, HEIGHT // pixels.shape[2])
    large = pixels.repeat(factor, 2).repeat(factor, 3)
    framed = np.pad(large, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    row = np.concatenate(list(framed), axis=2).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(buffer, format="png")
    return buffer.getvalue()
