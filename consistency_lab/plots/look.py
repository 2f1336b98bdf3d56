"""How figures look, on a screen or in a paper, and that they keep this look and its fonts however they are saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from consistency_lab.errors import UserError, unknown_name
from consistency_lab.plots.colours import GRID, INK, MUTED, Colour, palette_of

# Fonts as TrueType (Type 42), which printers and archives take and editors can change; Type 3, matplotlib's default, is refused by many.
FONTS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "consistency_lab"}
# Any: matplotlib's stubs want literal names of settings, which differ between its versions.
STYLE: Any = {
    **FONTS,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    # A model may be called "$x_" or "a$b$": names are shown as they are.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "savefig.dpi": 160,
}
# Inches: one column of a paper of two, and both.
WIDTHS = {"column": 3.25, "page": 6.75}
NARROWEST, WIDEST, NARROW = 2.5, 12.0, 4.5
# A figure in a paper is that of the screen, smaller, but no text is smaller than this, in points at printed size.
SHRINK, LEAST = 0.8, 6.0
PANEL = 1.75  # inches that a panel needs in a paper; those that have less go below
PAPER_DPI = 300
_DATES = {"pdf": "CreationDate", "svg": "Date"}


@dataclass(frozen=True)
class Look:
    """What a figure is drawn for.

    Attributes:
        style: "screen" or "paper". width: inches of a figure for paper. palette: the colours of series in their order, None for the own.
    """

    style: str = "screen"
    width: float = WIDTHS["page"]
    palette: tuple[str, ...] | None = None

    @property
    def paper(self) -> bool:
        return self.style == "paper"

    @property
    def narrow(self) -> bool:
        """Too narrow for long names beside the axes."""
        return self.paper and self.width < NARROW

    @property
    def settings(self) -> Any:
        """Of matplotlib, by name."""
        return {**STYLE, "savefig.dpi": PAPER_DPI} if self.paper else STYLE


_SCREEN = Look()
_NOW: ContextVar[Look] = ContextVar("look", default=_SCREEN)


def current() -> Look:
    """The look that figures are drawn with now."""
    return _NOW.get()


@contextlib.contextmanager
def look(
    style: str | None = None, width: str | float | None = None, palette: str | Sequence[Colour] | None = None
) -> Iterator[Look]:
    """Figures that are drawn inside have this look, and so have files that matplotlib writes there; its settings are then as before.

    Args:
        style: "screen", or "paper": text of at least 6 points and thinner lines on a figure that is exactly ``width`` wide.
        width: of a figure for paper: "column" (3.25 inches), "page" (6.75 inches, the default), or inches.
        palette: see `consistency_lab.plots.colours.palette_of`. Each is taken from the look around it if it is None.

    Raises:
        UserError: a style, width or palette that does not exist, or a width without ``style="paper"``.
    """
    own = current()
    if style is not None:
        if style not in ("screen", "paper"):
            raise unknown_name("style", str(style), ("screen", "paper"))
        own = replace(own, style=style)
    if width is not None:
        if not own.paper:
            raise UserError("a width is that of a figure for paper: give style='paper' with it.")
        own = replace(own, width=_inches(width))
    if palette is not None:
        own = replace(own, palette=palette_of(palette))
    token = _NOW.set(own)
    try:
        with matplotlib.rc_context(own.settings):
            yield own
    finally:
        _NOW.reset(token)


def _inches(width: str | float) -> float:
    if isinstance(width, str):
        if width in WIDTHS:
            return WIDTHS[width]
        with contextlib.suppress(ValueError):
            return _inches(float(width))
        raise unknown_name("width", width, WIDTHS)
    if not NARROWEST <= width <= WIDEST:
        raise UserError(
            f"a figure for paper is between {NARROWEST:g} and {WIDEST:g} inches wide, or {' or '.join(map(repr, WIDTHS))}, not {width!r}."
        )
    return float(width)


class StyledFigure(Figure):
    """A figure that is saved with the settings that it was drawn with, and so with the same fonts and bytes, by whomever and wherever."""

    look = _SCREEN
    finished = False

    def savefig(self, fname: Any, **options: Any) -> None:
        """As `matplotlib.figure.Figure.savefig`, with the caller's resolution. The file has no date unless ``metadata`` gives one.

        A page of `PdfPages` has the fonts that matplotlib's settings ask for, as all its pages have; within `look` they are TrueType.
        """
        settings = {key: value for key, value in self.look.settings.items() if key != "savefig.dpi"}
        if isinstance(fname, PdfPages):
            # Fonts are written when the whole is closed, outside of here.
            settings = {key: value for key, value in settings.items() if key not in FONTS}
        else:
            suffix = "" if hasattr(fname, "write") else Path(fname).suffix[1:]
            form = str(options.get("format") or suffix or matplotlib.rcParams["savefig.format"]).lower()
            if form in _DATES:
                options["metadata"] = {_DATES[form]: None, **(options.get("metadata") or {})}
        with matplotlib.rc_context(settings):
            super().savefig(fname, **options)


def blank_figure(width: float, height: float) -> StyledFigure:
    """A figure without axes, of ``width`` x ``height`` inches on a screen; in a paper as wide as the look says, and less high."""
    own = current()
    size = (own.width, SHRINK * height) if own.paper else (width, height)
    figure = StyledFigure(figsize=size, layout="constrained")
    figure.look = own
    return figure
