"""Writers of small files in the real formats."""

import hashlib
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image


def idx_bytes(array: np.ndarray) -> bytes:
    """IDX: two zeros, the type, the number of dimensions, their extents big-endian, the values."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


class Python2Pickler(pickle._Pickler):
    """Writes str and bytes as Python 2 wrote its strings, which is how the published CIFAR batches are written."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    """Protocol 2, with numpy's module under the name that it had then."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def picture(seed: int, height: int = 6, width: int = 6, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=mode)


@pytest.fixture(scope="session")
def real() -> SimpleNamespace:
    """The writers, and the checksums of what they wrote."""
    return SimpleNamespace(idx=idx_bytes, pickle=python2_pickle, picture=picture, sha256=sha256, md5=md5)


@pytest.fixture
def write_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write PNG files of given names below a folder; the picture is a function of its place in the list."""

    def write(*names: str, folder: str = "pictures", **options: Any) -> Path:
        for seed, name in enumerate(names):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(seed, **options).save(file)
        return tmp_path / folder

    return write
