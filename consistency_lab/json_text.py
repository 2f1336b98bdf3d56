"""JSON as files have it. What is nested deeper than any of ours is refused, before whatever walks through it runs out of stack."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100


def parsed(text: str | bytes) -> Any:
    """What a JSON text says. Raises `ValueError` for a text that is none, or is nested deeper than `DEEPEST`."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > DEEPEST and _depth(found) > DEEPEST:  # type: ignore[arg-type]
        raise ValueError("it is nested too deeply")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth
