"""Terminals and files that cannot hold every character: what they lack is spelled in ASCII, and nothing fails on it."""

from __future__ import annotations

import codecs
import sys

_SPELLED = {
    "−": "-", "–": "-", "×": "x", "±": "+-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "∞": "inf", "…": "...",
    "α": "alpha", "σ": "sigma", "ρ": "rho", "²": "^2", "\u202f": " ", "ᵢ": "_i",
}  # fmt: skip


def spell_out() -> None:
    """Let standard output and errors write characters that their encoding lacks in ASCII, the rest as ``\\u2026``."""
    codecs.register_error("spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a caller has put in their place
            stream.reconfigure(errors="spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SPELLED.get(one, one.encode("ascii", "backslashreplace").decode()) for one in lacking), error.end
