"""Whether a file keeps every pixel as it was: what compression changed is part of every distance."""

from __future__ import annotations

import io

_RIFF, _CHUNK, _FRAME = (
    12,
    8,
    16,
)  # bytes: WebP's file header, a chunk's, and what an animation's frame says before its own chunks


def lossy_kind(content: bytes) -> str:
    """``"JPEG"``, ``"WebP"`` or ``"TIFF"`` for a picture file that was compressed with loss, by what is in it; else empty.

    A WebP file is lossy if its first frame is in a chunk ``VP8 `` (or has ``ALPH`` beside one), and lossless in ``VP8L``
    (https://developers.google.com/speed/webp/docs/riff_container).
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "WEBP", "TIFF"))
    except OSError:  # of another format
        return ""
    if image.format == "WEBP":
        return "WebP" if _is_lossy_webp(content) else ""
    if image.format == "TIFF":
        return "TIFF" if image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp") else ""
    return "JPEG"


def _is_lossy_webp(content: bytes) -> bool:
    at = _RIFF
    while at + _CHUNK <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + _CHUNK], "little")
        if name in (b"VP8 ", b"ALPH", b"VP8L"):
            return name != b"VP8L"
        at += _CHUNK + (_FRAME if name == b"ANMF" else size + size % 2)
    return False
