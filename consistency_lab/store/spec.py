"""What was asked for, as one hash: equal specs are the same work, and the same work is done once."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consistency_lab.choices import Choice
from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.atomic import unreadable

NUMERICS_VERSION = 3
"""Raised whenever a change of code changes what is trained or raced: runs of another version are stale, never mixed in silently."""

MEASURES_VERSION = 4
"""Raised whenever the same models give other numbers when compared or probed; it stands in every result and in the rows of studies.

1: intervals over models alone, SSIM with the mirrored rim, mixed schedules at the times of the first model, nulls over all labels, the
excess over the optimal denoiser on any images, eigenvalues judged by the largest, roughness without its span.
2: intervals over models and noise, SSIM as published, one alignment a pair, nulls within labels, that excess on training images alone,
each eigenvalue by its own size, roughness and predictiveness by span.
3: stochastic samplers follow another path of the same law.
4: the ceiling is of a quarter of the samples; live models beside recordings are asked for their labels; SSIM, denoisers, gradient
moments and curvature to rounding.
"""


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


def files_named(spec: Any) -> dict[str, str]:
    """SHA-256 of each file that a choice in the spec names, such as ``"lpips-squeeze(weights='FILE')"``: by path -> digest.

    A path says where a file lies and not what it holds, so a hash over the spec alone would take new weights for the old ones.

    Raises:
        StoreError: such a file cannot be read.
    """
    if isinstance(spec, Mapping):
        spec = list(spec.values())
    if isinstance(spec, list | tuple):
        return {path: digest for value in spec for path, digest in files_named(value).items()}
    if not isinstance(spec, str) or "(" not in spec:
        return {}
    try:
        options = Choice.parse(spec).options
    except UserError:  # a text that is no choice
        return {}
    paths = [value for value in options.values() if isinstance(value, str) and os.path.isfile(value)]
    return {path: file_digest(Path(path)) for path in paths}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. Raises `StoreError` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


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
