"""One picture to uint8 (C, H, W): read correctly, or refused by name."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# Files that are read as pictures, by the end of their names.
SUFFIXES = {
    *(".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff"),
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
# Only these decoders: PIL knows others that start programs (EPS) or are rarely meant.
_DECODERS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_GREY_MODES, _COLOUR_MODES = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_BITS_PER_SAMPLE = 258  # TIFF's tag


def decode(content: bytes, what: str) -> tuple[torch.Tensor, int]:
    """A picture file: uint8 (C, H, W), upright, of its first frame or page, and how many of those it has.

    Raises `UserError`, naming ``what``, for a file that is empty, cannot be decoded or has more pixels than PIL opens, and as `from_pil`.
    """
    from PIL import Image

    if not content:
        raise UserError(f"{what} is empty (0 bytes), not an image; fetch it again or remove it.")
    try:
        image = Image.open(io.BytesIO(content), formats=_DECODERS)
        # The second picture of a camera's JPEG (MPO) is a preview or a map of brightness, no frame.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        return from_pil(image, what), frames
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        pixels, most = (int(number) / 1e6 for number in re.findall(r"\d+", str(error))[:2])
        raise UserError(
            f"{what} has {pixels:.0f} megapixels, and PIL opens no more than {most:.0f}, since such files are made to exhaust "
            "the memory; make it smaller first."
        ) from None
    except Exception:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{what} is truncated, damaged or not an image.") from None


def from_pil(image: Image.Image, what: str) -> torch.Tensor:
    """uint8 (1 or 3, H, W) of a PIL image, turned upright as its EXIF says; palettes and CMYK become RGB as PIL converts them.

    Raises `UserError` for more than 8 bits per channel, for partly transparent pixels, and for kinds that are neither grey nor colour.
    """
    from PIL import ImageOps

    bits = _bits(image)
    if bits > 8 or image.mode not in _GREY_MODES | _COLOUR_MODES:
        kind = f"{bits} bits a channel" if bits > 8 else f"PIL mode {image.mode}"
        raise UserError(f"{what} is not an 8-bit image ({kind}); convert it to 8 bits first.")
    image = ImageOps.exif_transpose(image)
    see_through = "A" in image.getbands() or "transparency" in image.info
    if see_through and np.array(image.convert("RGBA"))[..., 3].min() < 255:  # what alpha hides would show without it
        raise UserError(f"{what} is partly transparent; put it on a background first.")
    array = np.array(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _bits(image: Image.Image) -> int:
    """Bits per channel in the file: PIL makes 8 of the 16 of a colour image, and of 12 that were stored in 16 the upper 4."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    tile = getattr(image, "tile", None)  # what is still to be decoded, and how
    options = tile[0][3] if tile else None
    first, *others = options if isinstance(options, tuple) else (options,)
    if image.format == "PNG" and str(first).endswith(";16B"):
        return 16
    if image.format == "PPM" and others and isinstance(others[0], int):
        return others[0].bit_length()  # the largest value that the header allows
    return 8
