"""Images from a folder or a zip of image files; sub-folders are classes."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from tqdm.auto import tqdm

from consistency_lab.data.formats import read_bytes
from consistency_lab.data.views import View
from consistency_lab.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Only these decoders: PIL knows others that start programs (EPS) or are rarely meant.
_DECODERS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_GREY_MODES, _COLOUR_MODES = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def read_folder(path: Path, view: View, only: Collection[str] | None = None) -> tuple[torch.Tensor, list[str]]:
    """Every image below a folder or in a zip, in the order of their names.

    Args:
        path: a folder or a .zip file.
        view: applied to each image as it is read, so that only the result is kept in memory.
        only: file names (without folders) to keep; all when left out.

    Returns:
        uint8 pixels (N, C, H, W), C being 1 if all are grey and 3 otherwise, and the N names, relative, with "/".

    Raises `UserError`, naming the file, for one that cannot be decoded, is not 8 bits deep, is partly transparent or
    has another size than the first; and for a folder without images.
    """
    with _opened(path) as (names, read):
        if only is not None:
            names = [name for name in names if PurePosixPath(name).name in only]
        if not names:
            kinds = ", ".join(sorted(_SUFFIXES))
            raise UserError(f"{path} holds no images{'' if only is None else ' of that split'} ({kinds}).")
        images: list[torch.Tensor] = []
        for name in tqdm(names, desc=path.name, unit="image", disable=None, leave=False):
            what = f"{path / name}"
            images.append(view.apply(_decode(read(name), what)[None], what)[0])
            if images[-1].shape[1:] != images[0].shape[1:]:
                first, other = ("x".join(map(str, image.shape[1:])) for image in (images[0], images[-1]))
                raise UserError(
                    f"{path} holds images of several sizes ({names[0]} is {first}, {name} is {other}); "
                    "give size=... to resize them."
                )
    channels = max(len(image) for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images]), names


def classes_of(names: list[str], what: str) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (N,) and class names: the sub-folders at the first level where the names differ; None and () without such.

    Raises `UserError` if some lie in sub-folders and some beside them.
    """
    parents = [PurePosixPath(name).parent.parts for name in names]
    levels = enumerate(zip(*parents, strict=False))
    shared = next((i for i, level in levels if len(set(level)) > 1), min(map(len, parents)))
    below = [parts[shared : shared + 1] for parts in parents]
    if not any(below):
        return None, ()
    if not all(below):
        stray = names[below.index(())]
        raise UserError(
            f"{what} mixes sub-folders, which would be classes, with images beside them ({stray}); separate them."
        )
    class_names = sorted({name for (name,) in below})
    return torch.tensor([class_names.index(name) for (name,) in below], device="cpu"), tuple(class_names)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names of the image files, sorted, and a function that reads one."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield _images_among(names), lambda name: read_bytes(path / name)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        raise UserError(f"{path} is neither a folder nor a readable zip file of images.") from None

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError):
            raise UserError(f"{path / name} is damaged or locked in its zip file; fetch {path.name} again.") from None

    with archive:
        yield _images_among(archive.namelist()), read


def _images_among(names: list[str]) -> list[str]:
    def wanted(name: str) -> bool:
        hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
        return PurePosixPath(name).suffix.lower() in _SUFFIXES and not hidden

    return sorted(filter(wanted, names))


def _decode(content: bytes, what: str) -> torch.Tensor:
    """uint8 (C, H, W), upright."""
    from PIL import Image, ImageOps

    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=_DECODERS)
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{what} is truncated, damaged or not an image.") from None
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise UserError(f"{what} is not an 8-bit image (PIL mode {image.mode}); convert it to 8 bits first.")
    see_through = "A" in image.getbands() or "transparency" in image.info
    if see_through and np.array(image.convert("RGBA"))[..., 3].min() < 255:  # what alpha hides would show without it
        raise UserError(f"{what} is partly transparent; put it on a background first.")
    array = np.array(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
