"""A figure with its sentence, as a notebook shows it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.figure import Figure

from consistency_lab.markup import image
from consistency_lab.plots.theme import STYLE

DPI = 110


@dataclass(frozen=True)
class Still:
    """A figure and what it says.

    Attributes:
        figure: a matplotlib figure, to be changed or saved by the caller.
        sentence: what it says, with numbers and their intervals; the words for a reader who cannot see it.
        hint: what more could be had, if anything.
    """

    figure: Figure
    sentence: str
    hint: str = ""

    def _repr_html_(self) -> str:
        hint = f'<p style="opacity:0.7">{escape(self.hint)}</p>' if self.hint else ""
        return f"<div>{figure_html(self.figure, self.sentence)}<p>{escape(self.sentence)}</p>{hint}</div>"

    def __repr__(self) -> str:
        return self.sentence


def figure_html(figure: Figure, alt: str) -> str:
    """The figure as an image inside the page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=DPI)
    return image(buffer.getvalue(), alt)
