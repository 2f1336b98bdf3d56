"""Every file of numbers carries a checksum of its own content, which is looked at whenever the file is read.

BLAKE2b of 128 bits (RFC 7693). It stands inside the file, so that it goes wherever the file goes: in JSON as a key, in binary files as 32
hex digits behind `MARK`, of which the sum is taken as zeros. A file without one (of an earlier version, of another program) is read all
the same, and ``consistency-lab verify`` names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from consistency_lab.errors import DamagedError
from consistency_lab.store.atomic import atomic_path

KEY = "checksum"
MARK = "consistency-lab blake2b "
_DIGITS, _PART = 32, 1 << 20
BLANK = MARK + "0" * _DIGITS
_FOUND = re.compile(re.escape(MARK.encode()) + b"(.{%d})" % _DIGITS, re.DOTALL)
CHANGED = "is truncated, or was changed after it was written: its checksum does not fit"


def write_summed(path: str | os.PathLike[str], content: bytes | memoryview, at: int) -> None:
    """Write a file that holds `BLANK` at ``at``, whole or not at all, with its sum there. Raises `StoreError` as `atomic_path` does."""
    digits = hashlib.blake2b(content, digest_size=_DIGITS // 2).hexdigest().encode()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.seek(at + len(MARK))
        file.write(digits)


def sum_holds(file: BinaryIO, part: bytes, offset: int = 0) -> bool | None:
    """Whether the content of a file is the one that was written; None for a file without a sum.

    Args:
        file: open at any place; it is read whole, a mebibyte at a time.
        part: where the sum stands if there is one: the file from ``offset`` on.
    """
    found = _FOUND.search(part)
    if found is None:
        return None
    file.seek(0)
    return _digest(file, offset + found.start(1)).encode() == found[1]


def with_checksum(content: Mapping[str, Any], salt: str = "") -> dict[str, Any]:
    """A JSON object with its sum under `KEY`.

    Args:
        content: what JSON can hold. The order of keys and the layout of the text do not count.
        salt: what else the sum covers: that a log's line is of this run.
    """
    return {**content, KEY: _json_sum(content, salt)}


def checked(
    content: dict[str, Any], what: str | Path, remedy: str, salt: str = "", needed: bool = False
) -> dict[str, Any]:
    """A JSON object as it was before `with_checksum`; itself where it has no sum and none is ``needed``.

    Raises:
        DamagedError: the sum does not fit. The sentence names ``what`` and ends with the ``remedy``.
    """
    if KEY not in content and not needed:
        return content
    plain = {key: value for key, value in content.items() if key != KEY}
    if content.get(KEY) != _json_sum(plain, salt):
        raise DamagedError(f"{what} {CHANGED}; {remedy}.")
    return plain


def _json_sum(content: Mapping[str, Any], salt: str) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2, key=salt.encode()[:64]).hexdigest()


def _digest(file: BinaryIO, at: int) -> str:
    """The sum of a file with zeros for the digits at ``at``."""
    total, place = hashlib.blake2b(digest_size=_DIGITS // 2), 0
    while part := file.read(_PART):
        inside = slice(max(at - place, 0), max(at + _DIGITS - place, 0))
        if length := len(part[inside]):
            part = part[: inside.start] + b"0" * length + part[inside.start + length :]
        total.update(part)
        place += len(part)
    return total.hexdigest()
