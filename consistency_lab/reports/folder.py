"""A folder of results: netCDF and CSV, figures, and the report. What is already drawn from the same results is not drawn again."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from consistency_lab.errors import StoreError
from consistency_lab.json_text import parsed
from consistency_lab.kinds.registry import figures_of, kind_of
from consistency_lab.plots import save as _save
from consistency_lab.plots.save import SUFFIXES, save_figure
from consistency_lab.reports.html import HERE, KINDS_HERE, report
from consistency_lab.store.atomic import atomic_write, file_name
from consistency_lab.store.results import load_result, save_frame, save_result
from consistency_lab.store.shapes import whole

_DRAWN = ".drawn.json"
_PAGE = ("report.html", "report.json", "report.md")


def write_folder(results: Mapping[str, xr.Dataset], out: Path, title: str, *, figures: bool = True) -> Path:
    """Write results with their figures and the report; returns the page's path.

    Drawing takes most of the time. A result that the folder holds already, to the bit, keeps its files, and so does a page of the
    same results and title, unless the code that draws has changed or a file is missing. Results that an earlier call wrote here, and
    this one does not, are removed with their figures: a folder never mixes two calls.

    Args:
        results: by the name of the file that each belongs in; what a file cannot be called (a model's name) is spelled so that it can.
        out: gets ``results/``, ``figures/`` and ``report.html`` with its ``.json`` and ``.md``.
        title: of the page.
        figures: whether each figure becomes a file of its own, too, which takes half the time; the page has them all.

    Raises:
        StoreError: the folder cannot be written.
    """
    results = _by_file(results)
    notes, code = out / "figures" / _DRAWN, _digest((_code() + _code_of_kinds(results)).encode())
    before = _read(notes)
    others = {name: each for name, each in before.get("results", {}).items() if name not in results}
    if before.get("code") != code:
        before = {}
    atomic_write(notes, "{}\n")  # what is stopped on the way is drawn anew
    drawn = {
        name: _write_result(name, each, out, before.get("results", {}).get(name), figures)
        for name, each in results.items()
    }
    page = [title, {name: entry["digest"] for name, entry in drawn.items()}]
    path = out / _PAGE[0]
    if before.get("page") != page or not all((out / file).is_file() for file in _PAGE):
        report(list(results.values()), path, title=title)
    for name, each in others.items():
        _remove(name, each, out)
    atomic_write(notes, json.dumps({"code": code, "results": drawn, "page": page}, indent=1) + "\n")
    return path


def _by_file(results: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The results by names that files can have, all different."""
    named: dict[str, xr.Dataset] = {}
    for name, result in results.items():
        plain = file_name(name)
        numbered = (f"{plain} ({number})" for number in itertools.count(2))
        named[next(each for each in itertools.chain([plain], numbered) if each not in named)] = result
    return named


def _remove(name: str, drawn: Mapping[str, Any], out: Path) -> None:
    """Take a result that was written here before, and its figures, out of a folder that now holds others."""
    for suffix in (".nc", ".csv"):
        (out / "results" / f"{file_name(name)}{suffix}").unlink(missing_ok=True)
    for figure in drawn["figures"]:
        for suffix in SUFFIXES:
            (out / "figures" / f"{file_name(figure)}{suffix}").unlink(missing_ok=True)


def _write_result(
    name: str, result: xr.Dataset, out: Path, known: dict[str, Any] | None, figures: bool
) -> dict[str, Any]:
    """Write one result and, where they are wanted and not drawn as ``known`` says, its figures. Returns what is to be known next time."""
    path, table = (out / "results" / f"{name}{suffix}" for suffix in (".nc", ".csv"))
    if known and bool(known["figures"]) == figures and table.is_file() and _holds(path, result, known["digest"]):
        files = [out / "figures" / f"{figure}{suffix}" for figure in known["figures"] for suffix in SUFFIXES]
        if all(file.is_file() for file in files):
            return known
    save_result(result, path)
    save_frame(result, table)
    drawn = []
    for figure_name, figure, frame in figures_of(result) if figures else ():
        drawn.append(file_name(f"{name}-{figure_name}"))
        save_figure(figure, out / "figures" / drawn[-1], frame)
    return {"digest": _digest(path.read_bytes()), "figures": drawn}


def _holds(path: Path, result: xr.Dataset, digest: str) -> bool:
    """Whether the file is the one that was drawn, and holds this result."""
    try:
        return path.is_file() and _digest(path.read_bytes()) == digest and load_result(path).identical(result)
    except StoreError:
        return False


def _code() -> str:
    """Digest of the code that draws: the rooms plots, kinds and reports."""
    rooms = (HERE, KINDS_HERE, Path(_save.__file__).parent)
    files = sorted(path for room in rooms for path in room.iterdir() if path.is_file())
    return _digest(b"".join(path.name.encode() + path.read_bytes() for path in files))


def _code_of_kinds(results: Mapping[str, xr.Dataset]) -> str:
    """Digest of the files, of whatever package, that say how these results are shown."""
    rooms = {type(kind_of(whole(each))).__module__ for each in results.values()}
    files = (getattr(sys.modules[room], "__file__", None) for room in sorted(rooms))  # a notebook has none
    return _digest(b"".join(Path(file).read_bytes() for file in files if file))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(notes: Path) -> dict[str, Any]:
    try:
        found = parsed(notes.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
