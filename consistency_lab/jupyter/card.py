"""A result at a glance: its sentence, its numbers with intervals, a figure, how it was made, and the data themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.errors import UserError
from consistency_lab.intervals import estimates
from consistency_lab.jupyter.still import figure_html
from consistency_lab.kinds.numbers import with_interval
from consistency_lab.kinds.registry import kind_of
from consistency_lab.kinds.words import facts_of, machine
from consistency_lab.markup import bullets, table
from consistency_lab.plots import generic
from consistency_lab.plots.colours import Colour
from consistency_lab.plots.look import look
from consistency_lab.plots.reading import shown


@dataclass(frozen=True)
class Card:
    """What `show` returns.

    Attributes:
        figure: the first figure of the result.
        sentence: the headline of the result, with intervals.
        html: the card as a notebook shows it.
    """

    figure: Figure
    sentence: str
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.sentence


def show(
    result: xr.Dataset,
    *,
    style: str | None = None,
    width: str | float | None = None,
    palette: str | Sequence[Colour] | None = None,
) -> Card:
    """A result at a glance.

    In a notebook it is shown as the last line of a cell; after ``%load_ext consistency_lab`` results show themselves so.

    Args:
        result: of any kind (`KINDS`).
        style: of the figure: "screen", or "paper" for one that is exactly ``width`` wide, with text of at least 6 points.
        width: of a figure for paper: "column" (3.25 inches), "page" (6.75 inches, the default), or inches from 2.5 to 12.
        palette: colours of the figure's series: a list, or a name that matplotlib or, where it is installed, seaborn knows. The own palette
            by default, whose first four can be told apart by the colour-blind.

    Returns:
        A card with ``figure`` and ``sentence``; in a notebook also warnings, numbers with intervals, how the result was made, and the data.

    Raises:
        UserError: something that is no result, or holds no numbers; a style, width or palette that does not exist.
    """
    result = shown(result)
    kind = kind_of(result)
    with look(style, width, palette):
        first = next(iter(kind.figures(result)), None)
    sentence = kind.sentence(result)
    if first is None:
        raise UserError(f"this result of kind {result.attrs['kind']!r} has no figure to show.")
    return Card(first.figure, sentence, _html(result, sentence, figure_html(first.figure, f"{first.name}: {sentence}")))


def _html(result: xr.Dataset, sentence: str, figure: str) -> str:
    said = f"<p><strong>{escape(sentence)}</strong></p>"
    numbers = table("Numbers with 95 % intervals", rows) if (rows := _numbers(result)) else ""
    facts = facts_of(result)
    made = table("How it was made", machine(facts)) if facts else bullets(["This result does not say how it was made."])
    data = f"<details><summary>data</summary>{result._repr_html_()}</details>"
    return f"<div>{said}{figure}<details><summary>numbers and provenance</summary>{numbers}{made}</details>{data}</div>"


def _numbers(result: xr.Dataset) -> list[tuple[str, str]]:
    """Every single number of a result that has an interval."""
    known = {name: ends for name, ends in generic.single(result).items() if not math.isnan(ends.estimate)}
    return [(name, with_interval(*ends)) for name, ends in known.items() if name in estimates(result)]
