"""`Kind`: what a report, a notebook and a folder ask of a kind of result. Its own methods do for a result that nobody has described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.errors import UserError
from consistency_lab.intervals import estimates
from consistency_lab.kinds.numbers import records, single_numbers, with_interval
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots import generic


@dataclass(frozen=True)
class Drawing:
    """A figure of a result with what belongs to it."""

    form: ClassVar[str] = "drawing"
    name: str
    """of its files; no two of a result have one"""
    figure: Figure
    frame: pd.DataFrame
    """the data behind it, saved as CSV beside it"""
    alt: str = ""
    """what it shows, for a reader who cannot see it"""
    caption: str = ""
    """what must be known to read it: over what intervals are, what lines and bands mean"""
    narrow: Figure | None = None
    """the same for a window as narrow as a phone's, where the first would have to be moved sideways"""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row names it."""

    form: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Facts:
    """Names with their values, side by side; ``code`` sets the values as code."""

    form: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]
    code: bool = False


@dataclass(frozen=True)
class Fold:
    """Parts that are read when they are asked for, behind their title."""

    form: ClassVar[str] = "fold"
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Steps:
    """Sentences in their order, numbered."""

    form: ClassVar[str] = "steps"
    texts: Sequence[str]


@dataclass(frozen=True)
class Note:
    """A sentence in small print; a plain text among the parts is a paragraph."""

    form: ClassVar[str] = "note"
    text: str


Part = Drawing | Table | Facts | Fold | Steps | Note | str


@dataclass(frozen=True)
class Section:
    """What a report shows of one result: ``parts`` under a ``title``, in their order.

    ``template`` names another pair of templates than that of parts, ``own`` is what it reads (see `kinds.comparison`), and ``places``
    are the ends of the ids that it has inside, each with its name in the page's table of contents.
    """

    title: str
    parts: Sequence[Part] = ()
    template: str = "section"
    own: Mapping[str, Any] = field(default_factory=dict)
    places: Sequence[tuple[str, str]] = ()


class Kind:
    """All that is said of a kind of result. Subclass it, override what is to be said otherwise, and register the class.

        class Sharpness(cl.Kind):
            def sentence(self, ds):
                return f"sharpness {float(ds['sharpness']):.3g}"

        cl.KINDS.register("sharpness", Sharpness)

    As it is it shows a result of any kind, and does so for kinds that nobody registered: every variable with its interval
    (``x``, ``x_low``, ``x_high``) as a figure along its main dimension (t, step, position, ...) and in a table. Every method is given
    the result `whole`.

    Attributes:
        place: where its sections stand in a report, the lowest first: a comparison's is 10, a difficulty's 20, a race's 110.
    """

    place: int = 1000

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        """The figures (`consistency_lab.kinds.base.Drawing`), the one that says most first; each is drawn when it is asked for."""
        for name in generic.drawn(ds):
            intervals = " Bands and bars: from low to high." if name in estimates(ds) else " No interval is known."
            alt = f"{ds.attrs['kind']}: {generic.said(ds, name)}"
            yield Drawing(name, generic.figure(ds, name), generic.frame(ds, name), f"{alt}.", f"{alt}.{intervals}")
        if numbers := generic.single(ds):
            alt = f"{ds.attrs['kind']}: {', '.join(numbers)}."
            yield Drawing(
                "numbers", generic.points(numbers), generic.points_frame(numbers), alt, "Bars: from low to high."
            )

    def sentence(self, ds: xr.Dataset) -> str:
        """The headline of the result: one sentence that can stand alone, with intervals."""
        view = self.view(ds)
        return view.draw(**view.settled({}))[1]

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        """What the report's JSON file holds of it, beside its kind and provenance; strict JSON (`kinds.numbers.plain`)."""
        rows = {name: records(generic.frame(ds, name)) for name in generic.drawn(ds)}
        return {"numbers": single_numbers(ds), "rows": rows}

    def section(self, ds: xr.Dataset) -> Section:
        """What a report shows of it: drawings, tables, facts, notes and paragraphs (`consistency_lab.kinds.base`) in their order."""
        kind = str(ds.attrs["kind"])
        named = dict(generic.single(ds))
        for name in generic.variables(ds):
            named |= dict(generic.entries(ds, name))
        rows = [(name, with_interval(*ends)) for name, ends in named.items()]
        rows += [
            (name, generic.said(ds, name).removeprefix(f"{name} "))
            for name in generic.variables(ds)
            if not generic.entries(ds, name)
        ]
        title = kind[:1].upper() + kind[1:] + (f": {ds.attrs['model']}" if "model" in ds.attrs else "")
        return Section(title, [*self.figures(ds), Table(("what", "value [low, high]"), rows)])

    def together(self, results: Sequence[xr.Dataset]) -> Section | None:
        """One section on several results of this kind, where it says more than one after the other; None where it does not."""
        return None

    def view(self, ds: xr.Dataset) -> View:
        """What can be moved in a notebook (`consistency_lab.kinds.views`), and figure and sentence at a setting: a choice among figures."""
        drawn = {each.name: each for each in self.figures(ds)}
        if not drawn:
            raise UserError(
                f"this result of kind {ds.attrs['kind']!r} holds no numbers, so there is nothing to show of it."
            )
        names = tuple(drawn)

        def draw(figure: str) -> tuple[Figure, str]:
            return drawn[figure].figure, drawn[figure].alt or f"{ds.attrs['kind']}: {figure}."

        return View((Control("figure", "figure", names, names[0]),), draw)
