"""One picture file: read rightly or refused by name."""

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from consistency_lab.data.pictures import SUFFIXES, decode
from consistency_lab.errors import UserError

GREY, COLOUR, GREY_AND_ALPHA = 0, 2, 4  # PNG's colour types
CHANNELS = {GREY: 1, COLOUR: 3, GREY_AND_ALPHA: 2}


def png(values: np.ndarray, kind: int, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of uint8 or uint16 values (H, W, C), which PIL cannot write for 16-bit colour; ``size`` is what the header claims."""
    height, width = values.shape[:2] if size is None else size
    bits = 8 * values.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{values.dtype.itemsize}").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF of uint8 or uint16 colours (H, W, 3)."""
    height, width, _ = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    bits = struct.pack("<3H", *[8 * values.dtype.itemsize] * 3)
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 2),
        (273, 14),
        (277, 3),
        (278, height),
        (279, len(data)),
    ]
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value) for tag, value in tags
    )
    start = 14 + len(data)
    return b"II*\0" + struct.pack("<I", start) + bits + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_the_writers_of_this_file_write_what_pil_reads() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    for content in (png(values, COLOUR), tiff(values)):
        pixels, frames = decode(content, "x")
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), values)
        assert frames == 1


TWELVE_BITS = np.random.default_rng(1).integers(0, 4096, (4, 5, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ("content", "bits"),
    [
        (png(TWELVE_BITS, COLOUR), "16 bits a channel"),
        (png(TWELVE_BITS[..., :1], GREY), "16 bits a channel"),
        (png(np.full((4, 4, 2), 65535, np.uint16), GREY_AND_ALPHA), "16 bits a channel"),
        (tiff(TWELVE_BITS), "16 bits a channel"),
        (b"P6 5 4 65535\n" + TWELVE_BITS.astype(">u2").tobytes(), "16 bits a channel"),
        (b"P6 # a comment\n5 4\n4095\n" + TWELVE_BITS.astype(">u2").tobytes(), "12 bits a channel"),
        (b"P5 5 4 4095\n" + TWELVE_BITS[..., 0].astype(">u2").tobytes(), "12 bits a channel"),
        (b"P3 1 1 1000\n1 2 3\n", "10 bits a channel"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "tiff"), "32 bits a channel"),
    ],
)
def test_more_than_8_bits_are_refused_whatever_pil_would_make_of_them(content: bytes, bits: str) -> None:
    with pytest.raises(UserError, match=rf"a/x is not an 8-bit image \({bits}\); convert it"):
        decode(content, "a/x")


def test_fewer_than_8_bits_are_stretched_to_black_and_white() -> None:
    assert decode(b"P5 4 1 15\n" + bytes([0, 5, 10, 15]), "x")[0].flatten().tolist() == [0, 85, 170, 255]
    assert decode(b"P2 3 1 3\n0 1 3\n", "x")[0].flatten().tolist() == [0, 85, 255]
    assert decode(saved(Image.fromarray(np.array([[False, True]])), "png"), "x")[0].flatten().tolist() == [0, 255]


def test_grey_with_alpha_is_grey_where_it_is_opaque() -> None:
    opaque = Image.fromarray(
        np.dstack([np.arange(16, dtype=np.uint8).reshape(4, 4), np.full((4, 4), 255, np.uint8)]), "LA"
    )
    pixels, _ = decode(saved(opaque, "png"), "x")
    assert pixels.flatten().tolist() == list(range(16))
    opaque.putpixel((2, 1), (6, 254))
    with pytest.raises(UserError, match="x is partly transparent"):
        decode(saved(opaque, "png"), "x")


def test_a_palette_may_name_a_transparent_colour_that_no_pixel_has(real: SimpleNamespace) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for kind in ("gif", "png"):
        pixels, _ = decode(saved(palette, kind, transparency=2), "x")
        assert pixels[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]
        with pytest.raises(UserError, match="partly transparent"):
            decode(saved(palette, kind, transparency=1), "x")


def test_cmyk_is_what_pil_makes_of_it(real: SimpleNamespace) -> None:
    content = saved(real.picture(0, 16, 16).convert("CMYK"), "jpeg")
    pixels, _ = decode(content, "x")
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.array(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_frames_and_pages_are_counted_and_the_first_is_read(real: SimpleNamespace, kind: str) -> None:
    flat = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "webp" else {}
    pixels, frames = decode(saved(flat[0], kind, save_all=True, append_images=flat[1:], **options), "x")
    assert frames == 3
    assert pixels.amin(dim=(1, 2)).tolist() == pixels.amax(dim=(1, 2)).tolist() == [255, 0, 0]
    assert decode(saved(flat[0], kind), "x")[1] == 1


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(UserError, match=r"x\.png is empty \(0 bytes\)"):
        decode(b"", "x.png")
    with pytest.raises(UserError, match=r"x has 196 megapixels, and PIL opens no more than 179.*make it smaller"):
        decode(png(TWELVE_BITS, COLOUR, (14000, 14000)), "x")
    whole = png(TWELVE_BITS.astype(np.uint8), COLOUR)
    for place in range(8, len(whole) - 12):  # a bit in the header, the data or a checksum
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x55
        try:
            decode(bytes(spoilt), "x")
        except UserError as error:
            assert str(error).startswith("x ")  # noqa: PT017


def test_every_suffix_is_one_that_pil_reads_with_these_decoders() -> None:
    Image.init()
    kinds = {Image.EXTENSION[suffix] for suffix in SUFFIXES}
    assert kinds == {"PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"}


def test_pictures_from_cameras_with_a_preview_have_one_frame(real: SimpleNamespace, tmp_path: Path) -> None:
    main, preview = real.picture(0, 16, 16), real.picture(1, 8, 8)
    content = saved(main, "mpo", save_all=True, append_images=[preview])
    pixels, frames = decode(content, "x")
    assert frames == 1
    assert pixels.shape == (3, 16, 16)
