"""What is asked of a file before it is read: that it is one, and that what it declares is there and fits into the memory."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

from consistency_lab.errors import StoreError

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_DEFLATE = 1032  # bytes that one byte of deflate can stand for, at most
_CGROUP = Path("/sys/fs/cgroup")


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `StoreError` for a named pipe, device or socket, which might be waited for, or read, without end. Says nothing of what is
    missing or a folder: what reads it does.
    """
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # a name too long, or with a null in it
        return
    if kind:
        raise StoreError(f"{path} is {kind}, not a file; write what it gives into a file, and name that.")


def check_fits(size: int, what: object) -> None:
    """Raise `StoreError` if so many bytes are more than the memory that is free. ``what`` declares them."""
    free = free_memory()
    if free is not None and size > free:
        raise StoreError(
            f"{what} says that it holds {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free; it is damaged, made to "
            "exhaust the memory, or too large for this machine."
        )


def check_archive(path: str | os.PathLike[str], only: Collection[str] | None = None) -> None:
    """Look at what the members of a zip (an .npz file, a checkpoint of torch) declare, before any is unpacked; no zip is passed over.

    Args:
        only: names of the members that will be read; all by default.

    Raises:
        StoreError: no file; members that declare more than their bytes can hold, than their array takes, or than the memory has free.
    """
    check_file(path)
    try:
        opened = zipfile.ZipFile(path)
    except Exception:  # no zip, or a directory whose bytes happen to mean anything: who reads the file says so
        return
    with opened as archive, contextlib.suppress(OSError, zipfile.BadZipFile, EOFError, zlib.error):
        wanted = [info for info in archive.infolist() if only is None or info.filename in only]
        for info in wanted:
            what = f"{info.filename} in {path}"
            if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > _DEFLATE * (info.compress_size + 64):
                raise StoreError(
                    f"{what} says that its {info.compress_size:,} bytes unpack to {info.file_size:,}, which they cannot; it is damaged."
                )
        check_fits(sum(info.file_size for info in wanted), path)
        for info in wanted:
            if info.filename.endswith(".npy"):
                with contextlib.suppress(NotImplementedError, RuntimeError), archive.open(info) as member:
                    check_array(member, info.file_size, f"{info.filename} in {path}")


def check_array(file: IO[bytes], size: int, what: object) -> None:
    """Read the header of an .npy file of so many bytes, and compare the array that it declares; other content is passed over.

    Raises:
        StoreError: more bytes are declared than follow, or than the memory has free.
    """
    import numpy as np  # here, so that looking at runs does not wait for it

    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except Exception:  # a damaged header raises whatever its bytes happen to mean; who reads the array says so
        return
    declared = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and declared > size - file.tell():
        raise StoreError(
            f"{what} is truncated or damaged: its header says {' x '.join(map(str, shape)) or 'one number'} of {dtype}, "
            f"{declared:,} bytes, and {size - file.tell():,} follow."
        )
    check_fits(declared, what)


def free_memory() -> int | None:
    """Bytes that can be had without swapping, in this process's control group too; None where the system does not say (it is Linux's)."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        limit, used = ((_CGROUP / name).read_text("ascii") for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text("ascii").splitlines())
        found.append(int(limit) - int(used) + int(kept["inactive_file"]))  # what only caches files is given back
    return min(found, default=None)
