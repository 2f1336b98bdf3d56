"""Readers of single files: IDX (MNIST), the pickled batches of CIFAR, npz and npy. A file that cannot be used is named.

Nothing is believed unchecked: a checksum is compared before a pickle is opened, and the unpickler knows no class but
numpy's array.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from consistency_lab.errors import UserError
from consistency_lab.inputs import check_archive, check_array, check_file, check_fits

_IDX_BYTES = 0x08  # the type code of unsigned bytes, the only one that MNIST and its relatives use


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises `UserError` if it cannot be read, or does not fit into the memory."""
    check_file(path)
    try:
        check_fits(path.stat().st_size, path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from None


def verify(content: bytes, known: str, what: str) -> None:
    """Compare a checksum, ``known`` being "sha256:<hex>" or "md5:<hex>". Raises `UserError` naming ``what``."""
    algorithm, _, digest = known.partition(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != digest:
        raise UserError(
            f"{what} is damaged or is not the published file: its {algorithm} begins {found[:12]} instead of "
            f"{digest[:12]}; delete it and fetch it again."
        )


def read_idx(path: Path, known: str | None = None) -> np.ndarray:
    """An array of unsigned bytes from an IDX file, plain or gzipped.

    Args:
        path: the file; whether it is gzipped is seen from its content.
        known: checksum of the content after unpacking, so that it holds whoever packed it.

    Raises `UserError` for a file that is missing, truncated, of another format or with another checksum.
    """
    content = read_bytes(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = _unpacked(content, path)
        except (EOFError, OSError, zlib.error):
            raise UserError(f"{path} is truncated or damaged: it cannot be unpacked; fetch it again.") from None
    if known is not None:
        verify(content, known, str(path))
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_BYTES)) or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{path} is not an IDX file of unsigned bytes.")
    shape = tuple(int(extent) for extent in np.frombuffer(content, ">u4", count=content[3], offset=4))
    header = 4 + 4 * len(shape)
    if len(content) - header != math.prod(shape):
        raise UserError(
            f"{path} is truncated or damaged: it holds {len(content) - header} bytes where its header says "
            f"{' x '.join(map(str, shape))}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpacked(content: bytes, path: Path) -> bytes:
    """An IDX file that was gzipped, as far as its header says that it goes, and a byte more where there is one."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        header = file.read(4)
        header += file.read(4 * header[3]) if len(header) == 4 else b""
        size = math.prod(int(extent) for extent in np.frombuffer(header[4 : len(header) // 4 * 4], ">u4"))
        check_fits(size, path)
        return header + file.read(size + 1)


def read_npz(path: Path, key: str, label_key: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays ``key`` and, where the file has it, ``label_key`` of an npz file; pickled objects in it stay closed.

    Raises `UserError` for a file that is missing, damaged, without ``key``, or that holds Python objects.
    """
    check_file(path)
    if not zipfile.is_zipfile(path):
        raise _spoilt(path, "npz")
    check_archive(path, [f"{name}.npy" for name in (key, label_key)])
    with _closed_pickles(path, "npz"), np.load(path, allow_pickle=False) as file:
        there = file.files
        arrays = {name: file[name] for name in (key, label_key) if name in there}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member that is no array")
    if key not in arrays:
        raise UserError(
            f"{path} has no array {key!r} but {', '.join(there) or 'nothing'}; name the one with images in key='...'."
        )
    return arrays[key], arrays.get(label_key)


def read_npy(path: Path) -> np.ndarray:
    """The array of an npy file. Raises `UserError` for a file that is missing, damaged or holds Python objects."""
    check_file(path)
    with _closed_pickles(path, "npy"), path.open("rb") as file:
        check_array(file, path.stat().st_size, path)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _closed_pickles(path: Path, kind: str) -> Iterator[None]:
    """What numpy raises while it reads, in one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged header raises whatever its bytes happen to mean
        if "pickle" not in str(error) and "Object arrays" not in str(error):
            raise _spoilt(path, kind) from None
        raise UserError(f"{path} holds Python objects, which are not opened; save plain arrays of numbers.") from None


def _spoilt(path: Path, kind: str) -> UserError:
    return UserError(
        f"{path} cannot be read as an {kind} file: it is missing, truncated, damaged or of another format."
    )


def read_cifar_batch(content: bytes, known: str, what: str) -> dict[str, Any]:
    """The dictionary of one CIFAR batch (https://www.cs.toronto.edu/~kriz/cifar.html), a pickle of Python 2.

    Args:
        content: the file's bytes.
        known: their checksum; nothing is unpickled unless it agrees.
        what: the file's name, for messages.

    Raises `UserError` for another checksum, and for a pickle that asks for anything but numpy arrays.
    """
    verify(content, known, what)
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except UserError:
        raise UserError(f"{what} asks for Python objects other than arrays and was not opened.") from None
    except Exception:  # a damaged pickle raises whatever its bytes happen to mean
        raise UserError(f"{what} is not a batch of CIFAR.") from None
    if not isinstance(batch, dict):
        raise UserError(f"{what} is not a batch of CIFAR.")
    return batch


# numpy 2 moved the module; the function is taken from an array, so that no private module is imported.
_REBUILD = np.empty(0).__reduce__()[0]
_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and the built-in types; every other class or function is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise UserError(f"{module}.{name} is not allowed in a pickle of images.")
        return _KNOWN[module, name]
