"""Zip archives whose own sums are looked at before other people's code reads them."""

from __future__ import annotations

import os
import zipfile


def packing_holds(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a zip archive every member of which is as its packing says (CRC-32); it is read through once.

    torch may end the process, without an exception, over changed bytes of TorchScript.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive raises whatever its bytes happen to mean
        return False
