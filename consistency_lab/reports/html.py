"""The report: one HTML file that needs nothing else, with the same numbers as JSON and as Markdown beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from markupsafe import Markup

from consistency_lab.errors import UserError, unknown_name
from consistency_lab.paper.race.table import finals_table, race_table
from consistency_lab.plots import frames, probe_frames, reading
from consistency_lab.plots.curvature import number_frame
from consistency_lab.plots.theme import PALETTE
from consistency_lab.plots.timesteps import audit_frame
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table
from consistency_lab.reports import findings, landscapes, races, words
from consistency_lab.reports.comparison import comparison
from consistency_lab.reports.numbers import headline, plain, records
from consistency_lab.store.atomic import as_path, atomic_write
from consistency_lab.store.shapes import whole

SECTIONS: dict[str, Callable[[xr.Dataset, str], dict[str, Any]]] = {
    "comparison": comparison,
    "difficulty": findings.difficulty,
    "structure": findings.structure,
    "landscape": landscapes.landscape,
    "plane": landscapes.plane,
    "curvature": landscapes.curvature,
    "connectivity": findings.connectivity,
    "training": findings.training_curves,
    "recipe": findings.recipe,
    "timesteps": races.audit,
    "race": races.race,
}
HERE = Path(__file__).parent
DEFAULT_TITLE = "How alike are the images that these models make from the same noise?"


def report(results: Sequence[xr.Dataset], path: str | Path, title: str | None = None) -> Path:
    """Write a report on results of any known kinds, in the order of `SECTIONS`.

    Three files are written, each atomically: ``path`` (self-contained HTML), and beside it ``.json`` (numbers and
    provenance, strict JSON: undefined is null) and ``.md``. What a result does not hold is left out of the page.

    Args:
        results: at least one result with ``attrs["kind"]``; several of a kind are shown one after the other.
        path: ends in ``.html``. title: of the page.

    Raises:
        UserError: no results, something that is no result or of unknown kind, or a path that does not end in ``.html``.
        StoreError: the folder cannot be written.
    """
    path = as_path(path)
    if title is not None and not isinstance(title, str):
        raise UserError(f"the title of a report is text, not a {type(title).__name__}.")
    if path.suffix != ".html":
        raise UserError(f"the report is a web page: end its path in .html (got {str(path)!r}).")
    ordered = _ordered(results)
    sections = [SECTIONS[kind](ds, f"{kind}-{i}") for i, (kind, ds) in enumerate(ordered, start=1)]
    title = title or DEFAULT_TITLE
    numbers = {"kind": "report", "title": title, **_numbers(ordered)}
    environment = _environment()
    context = {"title": title, "sections": sections}
    page = environment.get_template("page.html.j2").render(context)
    markdown = environment.get_template("report.md.j2").render(context)
    atomic_write(path.with_suffix(".json"), json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    atomic_write(path.with_suffix(".md"), markdown)
    # The page comes last: where it is, the other two are.
    atomic_write(path, page)
    return path


def _ordered(results: Sequence[xr.Dataset]) -> list[tuple[str, xr.Dataset]]:
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
        ds = whole(ds)
        kind = str(ds.attrs["kind"])
        if kind not in SECTIONS:
            raise unknown_name("kind of result", kind, SECTIONS)
        found.append((kind, ds))
    return sorted(found, key=lambda item: list(SECTIONS).index(item[0]))


def _numbers(ordered: Sequence[tuple[str, xr.Dataset]]) -> dict[str, Any]:
    """The report as strict JSON: the first comparison's headline, then each result with its numbers and provenance."""
    entries = []
    for kind, ds in ordered:
        entry: dict[str, Any] = {"kind": kind}
        if kind == "comparison":
            entry["headline"] = headline(ds).as_dict()
            entry["metrics"] = {
                m: {**headline(ds, m).as_dict(), "rows": records(frames.overview(ds, m))}
                for m in reading.names(ds, "metric")
            }
        elif kind == "difficulty":
            entry["rows"] = records(frames.difficulty(ds))
            if "profile" in ds:
                entry["definitions"] = records(difficulty_table(ds))
                entry["rank_correlations"] = records(difficulty_correlations(ds))
        elif kind == "structure":
            entry["rows"], entry["switches"] = records(probe_frames.structure(ds)), records(probe_frames.switches(ds))
        elif kind == "connectivity":
            entry["rows"] = records(probe_frames.connectivity(ds))
            entry["numbers"] = _single(ds)
            entry["barriers"] = records(probe_frames.barriers(ds))
        elif kind in ("landscape", "plane"):
            entry["numbers"] = _single(ds)
        elif kind == "race":
            entry["rows"], entry["finals"] = records(race_table(ds)), records(finals_table(ds))
        elif kind == "timesteps":
            entry["rows"] = records(audit_frame(ds))
        elif kind == "curvature":
            entry["rows"] = records(number_frame(ds))
        texts = {name: ds.attrs[name] for name in ("model", "path", "title", "reasons", "settings") if name in ds.attrs}
        entry |= {name: json.loads(text) if name in ("reasons", "settings") else text for name, text in texts.items()}
        entry["provenance"] = plain(words.facts_of(ds))
        entries.append(entry)
    first = next((entry["headline"] for entry in entries if entry["kind"] == "comparison"), None)
    return {"headline": first, "results": entries}


def _single(ds: xr.Dataset) -> dict[str, float | None]:
    """The numbers of a result that have no dimensions."""
    return {str(name): plain(x.item()) for name, x in ds.data_vars.items() if not x.dims}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=jinja2.StrictUndefined,
        finalize=_literal,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Our own files, inlined; everything that comes from a result is escaped.
    environment.globals["style"] = Markup(_colours() + (HERE / "style.css").read_text(encoding="utf-8"))
    environment.globals["script"] = Markup((HERE / "page.js").read_text(encoding="utf-8"))
    return environment


# What begins markup in Markdown, mathematics included; an underscore or a bracket only where it does.
_MARKUP = re.compile(r"[\\`*|$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=\()")


@jinja2.pass_eval_context
def _literal(context: jinja2.nodes.EvalContext, value: Any) -> Any:
    """Text as it is to be read: in Markdown markup is escaped, as jinja itself does in HTML."""
    if context.autoescape or not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _MARKUP.sub(r"\\\g<0>", value)


def _colours() -> str:
    """The figures' palette as CSS variables: light, and dark where the reader's system asks for it on a screen."""
    light = "".join(f"--{name}:{colours[0]};" for name, colours in PALETTE.items())
    dark = "".join(f"--{name}:{colours[1]};" for name, colours in PALETTE.items())
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
