"""A figure on disk is three files: png to look at, pdf to print, csv to compute with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from consistency_lab.plots.look import Look, StyledFigure
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.results import csv_text

SUFFIXES = (".png", ".pdf", ".csv")
CSV_FLOAT = "%.6g"
_CANVASES: dict[str, type[FigureCanvasBase]] = {"png": FigureCanvasAgg, "svg": FigureCanvasSVG}
_NO_LAYOUT: Any = {"figure.autolayout": False, "figure.constrained_layout.use": False}


def save_figure(figure: Figure, stem: str | Path, frame: pd.DataFrame) -> tuple[Path, Path, Path]:
    """Write ``stem.png``, ``stem.pdf`` and ``stem.csv``, each atomically, and return their paths.

    Args:
        figure: what a plot function returned. stem: folder and name without suffix ("figures/digits/curves").
        frame: the data behind the figure, from `consistency_lab.plots.frames`.

    Raises:
        StoreError: the folder cannot be written.
    """
    stem = Path(stem)
    # Not with_suffix: a name such as "loss at t=0.3" has a dot of its own.
    png, pdf, csv = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    own = figure.look if isinstance(figure, StyledFigure) else Look()
    # A figure for paper keeps its width; of others what stands out is kept and margins are not.
    cut: dict[str, Any] = {} if own.paper else {"bbox_inches": "tight"}
    with matplotlib.rc_context(own.settings):
        for path, dates in ((png, {}), (pdf, {"CreationDate": None})):
            atomic_write(path, drawn(figure, path.suffix[1:], metadata=dates, **cut))
    atomic_write(csv, to_csv(frame))
    return png, pdf, csv


def drawn(figure: Figure, form: str, **options: Any) -> bytes:
    """What `Figure.savefig` writes, under the settings that hold, drawn once where the whole figure is asked for.

    A figure with a layout is drawn twice by matplotlib, first to see how large things are. The layout itself measures that, so that
    laying out and drawing are enough; the bytes are the same.

    Args:
        form: "png", "svg" or "pdf". options: of `Figure.savefig`.
    """
    buffer, engine, before = io.BytesIO(), figure.get_layout_engine(), figure.canvas
    canvas = _CANVASES.get(form)
    if canvas is None or engine is None or options.get("bbox_inches") is not None:
        figure.savefig(buffer, format=form, **options)
        return buffer.getvalue()
    dpi = figure.dpi
    # The measures of text are those of the form: vectors have 72 dots to the inch.
    canvas(figure)
    figure.set_dpi(72 if form == "svg" else options.get("dpi", matplotlib.rcParams["savefig.dpi"]))
    engine.execute(figure)
    figure.set_dpi(dpi)
    try:
        with matplotlib.rc_context(_NO_LAYOUT):
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=form, **options)
    finally:
        figure.set_layout_engine(engine)
        figure.set_canvas(before)
    return buffer.getvalue()


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV text with six digits; a named index is kept as a column."""
    return csv_text(frame, CSV_FLOAT)
