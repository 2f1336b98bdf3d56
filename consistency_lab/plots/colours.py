"""The colours of figures: a page can exchange them for the dark, and a reader for a palette of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, is_color_like, to_hex, to_rgb

from consistency_lab.errors import UserError, unknown_name

Colour: TypeAlias = str | tuple[float, float, float] | tuple[float, float, float, float]

# name -> (on white, on dark). The page swaps the first for the second, so no first colour may appear twice. Series
# follow Okabe and Ito's colour-blind safe hues, darkened or lightened to the contrast that text needs (4.5 to 1).
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1d2430", "#e8ebf0"),
    "muted": ("#586474", "#a3aebd"),
    "grid": ("#dfe3e8", "#333b47"),
    "same": ("#0068a6", "#56b4e9"),
    "null": ("#c04a00", "#ff9a55"),
    "ceiling": ("#007a5a", "#35c79c"),
    "reference": ("#8d4a86", "#dd9bd6"),
    "series-ochre": ("#8a6100", "#e0b040"),
    "series-teal": ("#20707f", "#74cfdf"),
    "series-rose": ("#b02a56", "#ff8fb0"),
    "series-slate": ("#4a4f9c", "#a8aef0"),
}
INK, MUTED, GRID, SAME, NULL, CEILING, REFERENCE = (light for light, _ in list(PALETTE.values())[:7])
SERIES: tuple[str, ...] = (SAME, NULL, CEILING, REFERENCE, *(light for light, _ in list(PALETTE.values())[7:]))
# A second cue beside colour, in the order of SERIES.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
# Noise levels in their order, noise first. All can be seen on white and on dark (3 to 1), so that hue alone tells them apart, beside a bar.
LEVELS = LinearSegmentedColormap.from_list("levels", ["#6a5fd0", "#a04fb8", "#cc4f86", "#d9653f", "#b98a1c"])
# Text on coloured cells: not in the palette, because the cell keeps its colour in the dark. Black and white, because of these the better
# one has a contrast of at least 4.58 to any colour.
ON_LIGHT, ON_DARK = "#000000", "#ffffff"
_LISTED = 20  # colours at most in a colour map that is a list of them and no scale


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    channels = np.array(to_rgb(colour), dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: Colour, b: Colour) -> float:
    """Contrast of two colours, 1 to 21; WCAG 2.2 asks 4.5 of text and 3 of what is needed to use a control."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def ink_on(colour: Colour) -> str:
    """The colour of text on a cell of this colour."""
    return max((ON_LIGHT, ON_DARK), key=lambda ink: contrast(ink, colour))


def darkened(colour: Colour, least: float = 4.5) -> str:
    """The colour, as much darker as text of it needs to be read on white."""
    rgb = np.array(to_rgb(colour), dtype=float)
    for share in np.linspace(1.0, 0.0, 51):
        if contrast(tuple(share * rgb), "#ffffff") >= least:
            return to_hex(share * rgb)
    return ON_LIGHT


def palette_of(given: str | Sequence[Colour] | None) -> tuple[str, ...] | None:
    """The colours of a palette, for the names in `SERIES` and in their order; None is the own palette, of the hues of Okabe and Ito.

    Args:
        given: a list of colours, or a name: of a colour sequence or map of matplotlib ("tab10", "Set2", "viridis": a map that is a scale
            gives evenly spaced colours), or of a palette of seaborn ("colorblind", "deep", "husl"), which then has to be installed.

    Raises:
        UserError: nobody knows the name, or what is given are no colours.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return tuple(to_hex(colour) for colour in _named(given))
    colours = list(given) if isinstance(given, Sequence) else []
    if not colours:
        raise UserError("a palette is the name of one, or a list of colours that is not empty.")
    for colour in colours:
        if not is_color_like(colour):
            raise UserError(f"{colour!r} is no colour that matplotlib knows, so that no palette has it.")
    return tuple(to_hex(colour) for colour in colours)


def _named(name: str) -> Sequence[Any]:
    if name in matplotlib.color_sequences:
        return matplotlib.color_sequences[name]
    if name in matplotlib.colormaps:
        found = matplotlib.colormaps[name]
        if isinstance(found, ListedColormap) and found.N <= _LISTED:
            return list(found(range(found.N)))
        # Neither end: they are nearly white or black. The same places are seaborn's.
        return list(found(np.linspace(0, 1, len(SERIES) + 2)[1:-1]))
    known = {*matplotlib.color_sequences, *(each for each in matplotlib.colormaps if not each.endswith("_r"))}
    try:
        import seaborn
    except ImportError:
        error = unknown_name("palette", name, known)
        raise UserError(f"{error} (With seaborn installed its palettes are known too.)") from None
    own = seaborn.palettes.SEABORN_PALETTES
    try:
        return list(seaborn.color_palette(name, None if name in own else len(SERIES)))
    except (ValueError, TypeError):
        raise unknown_name("palette", name, known | set(own) | {"husl", "hls"}) from None
