"""How figures look, on a screen or in a paper, and that they keep this look and its fonts however they are saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from consistency_lab.errors import UserError, unknown_name
from consistency_lab.plots.colours import GRID, INK, MUTED, SERIES, Colour, darkened, palette_of

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
IN_CELL = ("number", "interval", "reason")  # texts that may not be wider than a unit of the horizontal axis
BELOW = "below"  # a legend under the axes
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
    def settings(self) -> dict[str, Any]:
        """Of matplotlib."""
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


def finish(figure: StyledFigure) -> None:
    """Give a figure that is drawn the palette and, for paper, the sizes of its look; once."""
    if figure.finished:
        return
    figure.finished = True
    if figure.look.palette is not None:
        _recolour(figure, figure.look.palette)
    if figure.look.paper:
        _shrink(figure)
        _wrap(figure)


def note_below(figure: Figure, text: str) -> None:
    """A remark under a figure that is drawn, in room that its layout leaves there; further ones come above the first."""
    wide, high = figure.get_size_inches()
    said = fill(text, int(72 * 0.96 * wide / (0.56 * LEAST)))
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    below = [legend for legend in figure.legends if legend.get_gid() == BELOW]
    foot, room = engine.get()["rect"][1], (1.3 * LEAST * (said.count("\n") + 1) + 2) / 72 / high
    figure.text(0.01, foot + 0.01 / high, said, fontsize=LEAST, color=MUTED, va="bottom")
    ground = foot + room
    for legend in below:  # matplotlib leaves room for one that stands on the foot of the figure, and for no other
        if foot == 0:
            figure.draw_without_rendering()
            legend.set_bbox_to_anchor((0, ground, 1, 1 - ground), transform=figure.transFigure)
            room += legend.get_window_extent().height / figure.bbox.height
    engine.set(rect=(0, foot + room, 1, 1 - foot - room))
    if current().paper:
        _wrap(figure)


def _recolour(figure: Figure, palette: Sequence[str]) -> None:
    """Exchange the colours of series for those of a palette, wherever they are. Text is darkened until it can be read."""
    used: set[int] = set()

    def other(colour: Any, text: bool = False) -> Any:
        """The colour in exchange, with the same opacity; None for what is of no series."""
        if not isinstance(colour, str | tuple | list | np.ndarray) or str(colour) in ("none", "auto"):
            return None
        shown = to_hex(colour)
        if shown not in SERIES:
            return None
        place = SERIES.index(shown)
        used.add(place)
        new = palette[place % len(palette)]
        opacity = to_hex(colour, keep_alpha=True)[7:]
        return f"{darkened(new) if text else new}{'' if opacity == 'ff' else opacity}"

    for artist in figure.findobj():
        if isinstance(artist, Text):
            _exchange(artist, "color", lambda colour: other(colour, text=True))
        elif isinstance(artist, Line2D):
            for what in ("markerfacecolor", "markeredgecolor", "color"):
                _exchange(artist, what, other)
        elif isinstance(artist, Patch):
            for what in ("facecolor", "edgecolor"):
                _exchange(artist, what, other)
        elif isinstance(artist, Collection) and artist.get_array() is None:
            for what in ("facecolor", "edgecolor"):
                old = getattr(artist, f"get_{what}")()
                if isinstance(old, np.ndarray) and len(old):
                    new = [other(each) or tuple(each) for each in old]
                    getattr(artist, f"set_{what}")(new)
    if used and max(used) >= len(palette):
        raise UserError(
            f"this figure needs a palette of {max(used) + 1} colours, and the one given has {len(palette)}."
        )


def _exchange(artist: Any, what: str, other: Any) -> None:
    new = other(getattr(artist, f"get_{what}")())
    if new is not None:
        getattr(artist, f"set_{what}")(new)


def _shrink(figure: Figure) -> None:
    for artist in figure.findobj():
        if isinstance(artist, Text):
            artist.set_fontsize(max(LEAST, SHRINK * artist.get_fontsize()))
        elif isinstance(artist, Line2D):
            artist.set(linewidth=SHRINK * artist.get_linewidth(), markersize=SHRINK * artist.get_markersize())
        elif isinstance(artist, Patch):
            artist.set_linewidth(SHRINK * artist.get_linewidth())
        elif isinstance(artist, Axes):
            for axis in (artist.xaxis, artist.yaxis):
                tick = axis.get_major_ticks(1)[0]
                # Of those that are made later.
                axis.set_tick_params(labelsize=max(LEAST, SHRINK * tick.label1.get_fontsize()))


def _wrap(figure: Figure) -> None:
    """Break what is longer than its axes, or the figure."""
    figure.draw_without_rendering()  # the layout must be known
    wide, high = figure.get_size_inches()
    for ax in figure.axes:
        box = ax.get_position()
        # A label may reach over its axes a little, as far as the ticks do.
        for text, room in (
            (ax.xaxis.label, box.width * wide + 0.25), (ax.yaxis.label, box.height * high + 0.15),
            (ax.title, box.width * wide), (ax._left_title, box.width * wide),
        ):  # fmt: skip
            _broken(text, room)
        _hide_overfull(ax)
    for text in figure.texts:
        _broken(text, 0.96 * wide)
    for legend in figure.findobj(Legend):
        for text in legend.get_texts():
            _broken(text, 0.85 * wide)


def _hide_overfull(ax: Axes) -> None:
    """Leave out what is wider than the cell of a table that it stands in (`IN_CELL`), from all cells: it is in the data."""
    (left, _), (right, _) = ax.transData.transform([(0, 0), (1, 0)])
    for kind in IN_CELL:
        texts = [text for text in ax.texts if text.get_gid() == kind]
        for text in texts:
            text.set_visible(True)
            if text.get_window_extent().width > abs(right - left):
                text.set_fontsize(LEAST)
        if any(text.get_window_extent().width > abs(right - left) for text in texts):
            for text in texts:
                text.set_visible(False)


def _broken(text: Text, room: float) -> None:
    """Lines of a text that are wider than ``room`` inches are broken between words."""
    letters = max(8, int(72 * room / (0.56 * text.get_fontsize())))
    lines = str(text.get_text()).split("\n")
    text.set_text(
        "\n".join(
            fill(line, letters, break_long_words=False, break_on_hyphens=False) if len(line) > letters else line
            for line in lines
        )
    )
