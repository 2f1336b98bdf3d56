"""A figure on disk is three files: png to look at, pdf to print, csv to compute with."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from consistency_lab.plots.theme import STYLE
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.results import csv_text

SUFFIXES = (".png", ".pdf", ".csv")
CSV_FLOAT = "%.6g"


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
    with matplotlib.rc_context(STYLE):
        for path, dates in ((png, {}), (pdf, {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=path.suffix[1:], metadata=dates, bbox_inches="tight")
            atomic_write(path, buffer.getvalue())
    atomic_write(csv, to_csv(frame))
    return png, pdf, csv


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV text with six digits; a named index is kept as a column."""
    return csv_text(frame, CSV_FLOAT)
