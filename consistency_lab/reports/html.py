"""The report: one HTML file that needs nothing else, with the same numbers as JSON and as Markdown beside it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from markupsafe import Markup

from consistency_lab.errors import UserError
from consistency_lab.kinds import registry as _kinds
from consistency_lab.kinds import words
from consistency_lab.kinds.base import Drawing, Kind, Section
from consistency_lab.kinds.numbers import Headline, plain, score_text
from consistency_lab.kinds.registry import kind_of
from consistency_lab.markup import markdown
from consistency_lab.plots.reading import shown
from consistency_lab.plots.theme import PALETTE
from consistency_lab.reports.svg import csv_link, inline_svg
from consistency_lab.store.atomic import as_path, atomic_write

HERE, KINDS_HERE = Path(__file__).parent, Path(_kinds.__file__).parent
LONG = 24  # rows of a table beyond which it is behind its title
DEFAULT_TITLE = "How alike are the images that these models make from the same noise?"


def report(results: Sequence[xr.Dataset], path: str | Path, title: str | None = None) -> Path:
    """Write a report on results of any kind, in the order of their kinds' places.

    Three files are written, each atomically: ``path`` (self-contained HTML), and beside it ``.json`` (numbers and
    provenance, strict JSON: undefined is null) and ``.md``. What a result does not hold is left out of the page.

    Args:
        results: at least one result with ``attrs["kind"]``; several of a kind are shown one after the other. Of a kind that nobody
            registered (`KINDS`) every variable is shown with its interval, as figures and in a table.
        path: ends in ``.html``. title: of the page.

    Raises:
        UserError: no results, something that is no result or holds no numbers, or a path that does not end in ``.html``.
        StoreError: the folder cannot be written.
    """
    path = as_path(path)
    if title is not None and not isinstance(title, str):
        raise UserError(f"the title of a report is text, not a {type(title).__name__}.")
    if path.suffix != ".html":
        raise UserError(f"the report is a web page: end its path in .html (got {str(path)!r}).")
    ordered = _ordered(results)
    sections = [_section(*each, i) for i, each in enumerate(_sections(ordered), start=1)]
    title = title or DEFAULT_TITLE
    numbers = {"kind": "report", "title": title, **_numbers(ordered)}
    environment = _environment()
    context = {"title": title, "sections": sections, "summary": _summary(sections)}
    page = environment.get_template("page.html.j2").render(context)
    markdown = environment.get_template("report.md.j2").render(context)
    atomic_write(path.with_suffix(".json"), json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    atomic_write(path.with_suffix(".md"), markdown)
    # The page comes last: where it is, the other two are.
    atomic_write(path, page)
    return path


def _ordered(results: Sequence[xr.Dataset]) -> list[tuple[Kind, xr.Dataset]]:
    if isinstance(results, xr.Dataset):
        raise UserError("report() takes a list of results; write report([result], path).")
    if not isinstance(results, Iterable):
        raise UserError(f"report() takes a list of results, not a {type(results).__name__}.")
    results = list(results)
    if not results:
        raise UserError("there is nothing to report: give at least one result.")
    found = []
    for ds in results:
        if not isinstance(ds, xr.Dataset | xr.DataArray):
            raise UserError(f"a report is made of results (xarray datasets), not of {type(ds).__name__}.")
        ds = shown(ds)
        found.append((kind_of(ds), ds))
    # Those of one kind stay in their order and beside each other, also where another kind has the same place.
    return sorted(found, key=lambda item: (item[0].place, str(item[1].attrs["kind"])))


def _sections(ordered: Sequence[tuple[Kind, xr.Dataset]]) -> Iterator[tuple[Section, list[xr.Dataset]]]:
    """Each section with its results: one for all those of a kind that can be shown together, else one for each."""
    for _, group in itertools.groupby(ordered, key=lambda item: str(item[1].attrs["kind"])):
        kinds, results = zip(*group, strict=True)
        if len(results) > 1 and (together := kinds[0].together(results)):
            yield together, list(results)
        else:
            yield from ((kind.section(ds), [ds]) for kind, ds in zip(kinds, results, strict=True))


def _section(section: Section, results: Sequence[xr.Dataset], number: int) -> dict[str, Any]:
    """What the templates read of a section, beside what its kind has for its own."""
    kind = re.sub(r"[^\w.-]+", "-", str(results[0].attrs["kind"]))
    common = {name: getattr(section, name) for name in ("template", "title", "parts", "places")}
    made = "; and ".join(dict.fromkeys(filter(None, map(words.made, results))))
    return {**common, "key": f"{kind}-{number}", "made": made, **section.own}


def _summary(sections: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The scores of several comparisons, each with the section that it is from; empty where there is one, or none."""
    rows = [
        {
            "key": section["key"],
            "models": ", ".join(section["names"]),
            "score": f"{score_text(first.score, first.low, first.high)} ({first.metric})",
            "interval": first.interval,
        }
        for section in sections
        if isinstance(first := section.get("headline"), Headline)
    ]
    return rows if len(rows) > 1 else []


def _numbers(ordered: Sequence[tuple[Kind, xr.Dataset]]) -> dict[str, Any]:
    """The report as strict JSON: the first headline of a comparison, then each result with its numbers and provenance."""
    entries = []
    for kind, ds in ordered:
        entry: dict[str, Any] = {"kind": str(ds.attrs["kind"]), **kind.numbers(ds)}
        entry |= {name: ds.attrs[name] for name in ("model", "path", "title") if name in ds.attrs}
        entries.append({**entry, "provenance": plain(words.facts_of(ds))})
    first = next((entry["headline"] for entry in entries if "headline" in entry), None)
    return {"headline": first, "results": entries}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE, KINDS_HERE]),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=jinja2.StrictUndefined,
        finalize=_literal,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["svg"] = _svg
    environment.globals["long"] = LONG
    environment.globals["csv"] = lambda drawing: csv_link(drawing.frame)
    # Our own files, inlined; everything that comes from a result is escaped.
    environment.globals["style"] = Markup(_colours() + (HERE / "style.css").read_text(encoding="utf-8"))
    environment.globals["script"] = Markup((HERE / "page.js").read_text(encoding="utf-8"))
    return environment


def _svg(drawing: Drawing, key: str, narrow: bool = False) -> Markup:
    figure = drawing.narrow if narrow and drawing.narrow is not None else drawing.figure
    return inline_svg(figure, re.sub(r"[^\w.-]+", "-", key), drawing.alt or drawing.name)


@jinja2.pass_eval_context
def _literal(context: jinja2.nodes.EvalContext, value: Any) -> Any:
    """Text as it is to be read: in Markdown markup is escaped, as jinja itself does in HTML."""
    if context.autoescape or not isinstance(value, str) or isinstance(value, Markup):
        return value
    return markdown(value)


def _colours() -> str:
    """The figures' palette as CSS variables: light, and dark where the reader's system asks for it on a screen."""
    light = "".join(f"--{name}:{colours[0]};" for name, colours in PALETTE.items())
    dark = "".join(f"--{name}:{colours[1]};" for name, colours in PALETTE.items())
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
