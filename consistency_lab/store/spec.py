"""What was asked for, as one hash: equal specs are the same work, and the same work is done once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from consistency_lab.errors import StoreError

NUMERICS_VERSION = 2
"""Raised whenever a change of code changes results: runs of another version are stale, never mixed in silently."""


def content_hash(spec: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the spec's canonical JSON.

    The order of keys does not count, tuples equal lists; ``1``, ``1.0`` and ``True`` are three different values, so
    settings must be brought to their types before they are hashed.

    Raises:
        StoreError: something in the spec is not JSON (a tensor, a path, NaN, a key that is no string).
    """
    return hashlib.sha256(canonical(spec).encode()).hexdigest()


def canonical(spec: Mapping[str, Any]) -> str:
    """The one JSON text of a spec: keys sorted, no spaces, ASCII. Raises `StoreError` as `content_hash` does."""
    _check(spec, "")
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check(value: Any, where: str) -> None:
    """Refuse what JSON would write wrongly (keys 1 and "1" become one) or not at all, and say where it is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise StoreError(f"the key {key!r} of the spec{_at(where)} is no text; write it as a string.")
            _check(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise StoreError(f"the spec holds {value}{_at(where)}; give a finite number, or None where there is no limit.")
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise StoreError(f"the spec holds a {kind}{_at(where)}; give a number, a text, a list, a dict or None.")


def _at(where: str) -> str:
    return f" at {where!r}" if where else ""
