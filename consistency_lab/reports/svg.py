"""A matplotlib figure as a piece of the page: inline SVG whose text is text and whose colours follow the theme."""

from __future__ import annotations

import base64
import re

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from consistency_lab.plots.save import drawn, to_csv
from consistency_lab.plots.theme import PALETTE, STYLE

SMALLEST = 0.8  # share of its own size to which a figure may shrink
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_COLOURS = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}


def csv_link(frame: pd.DataFrame) -> str:
    """A link that saves the frame as CSV, for ``<a download>``."""
    return f"data:text/csv;base64,{base64.b64encode(to_csv(frame).encode()).decode()}"


def inline_svg(figure: Figure, prefix: str, alt: str) -> Markup:
    """The figure as an ``<svg role="img">`` element.

    Args:
        prefix: put before every id, so that figures of one page do not share clip paths and markers.
        alt: what a reader who cannot see the figure is told.
    """
    with matplotlib.rc_context(STYLE):
        svg = drawn(figure, "svg", metadata=_NO_METADATA, facecolor="none").decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # In tags alone: between them stand names, which may look like anything.
    tags = re.findall(r"<[^>]+>", svg)
    used = {a or b for tag in tags for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', tag)}
    svg = re.sub(r"<[^>]+>", lambda tag: _own_ids(_lighter(tag[0]), prefix, used), svg)
    width = figure.get_size_inches()[0] * 72
    # Drawn at its own size where there is room, and no smaller than what can still be read: on a narrow screen it is moved sideways.
    full, least = width * 4 / 3, width * 4 / 3 * SMALLEST
    opening = f'<svg role="img" aria-label="{escape(alt)}" style="max-width: {full:.0f}px; min-width: {least:.0f}px"'
    svg = re.sub(r'^<svg\s+height="[^"]*"|^<svg', "<svg", svg)
    svg = re.sub(r'^(<svg[^>]*?)\s(?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?)\s(?:width|height)="[^"]*"', r"\1", svg)
    return Markup(svg.replace("<svg", opening, 1).strip())


def _lighter(tag: str) -> str:
    tag = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", tag).replace("xlink:href=", "href=")
    # Two decimals of a point are finer than a screen shows; matplotlib writes six.
    tag = re.sub(r'(\s(?:d|x|y|transform)=")([^"]*)"', lambda found: found[1] + _shorten(found[2]) + '"', tag)
    return re.sub("|".join(_COLOURS), lambda found: _COLOURS[found[0]], tag)


def _shorten(numbers: str) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", numbers)


def _own_ids(tag: str, prefix: str, used: set[str]) -> str:
    """Keep the ids that something refers to, under a prefix; drop the rest."""
    tag = re.sub(r'\sid="([^"]+)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", tag)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', tag)
