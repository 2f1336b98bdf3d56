"""A gate for continuous integration: JUnit XML, Markdown for a pull request's comment, JSON."""

from __future__ import annotations

import io
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import xarray as xr

from consistency_lab.gates.decision import FAIL, OPEN
from consistency_lab.kinds.gate import HEAD, Gate, must, note_of, rows, title, told
from consistency_lab.markup import markdown
from consistency_lab.plots import reading
from consistency_lab.plots.gate import worst_figure
from consistency_lab.plots.theme import STYLE
from consistency_lab.store.atomic import as_path, atomic_write
from consistency_lab.store.results import provenance
from consistency_lab.store.shapes import whole


def json_text(ds: xr.Dataset) -> str:
    """Decision, status, numbers of every metric and look, worst pairs and provenance, as JSON."""
    ds = whole(ds)
    return json.dumps({**Gate().numbers(ds), "provenance": provenance(ds)}, indent=2, allow_nan=False) + "\n"


def write_junit(ds: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """One test case for each metric and its bound; what cannot be told is an error, for a skipped test would be green.

    Raises:
        StoreError: it cannot be written.
    """
    ds = whole(ds)
    metrics = reading.names(ds, "metric")
    decisions = {metric: str(ds["decision"].sel(metric=metric).item()) for metric in metrics}
    counts = {
        "tests": len(metrics),
        "failures": list(decisions.values()).count(FAIL),
        "errors": list(decisions.values()).count(OPEN),
    }
    counted = {key: str(value) for key, value in counts.items()}
    root = ET.Element("testsuites", counted)
    suite = ET.SubElement(root, "testsuite", {"name": "consistency-lab gate", **counted, "skipped": "0"})
    for metric in metrics:
        name = f"{metric}: {must(ds, metric)}"
        case = ET.SubElement(
            suite, "testcase", classname=f"gate.{ds.attrs['candidate']} against {ds.attrs['reference']}", name=name
        )
        message = f"{told(ds, metric)}; {ds.sizes['sample']} samples"
        if (decision := decisions[metric]) in (FAIL, OPEN):
            said = ET.SubElement(case, "failure" if decision == FAIL else "error", message=message, type=decision)
            said.text = "\n".join([message, *reading.warnings(ds)])
        else:
            ET.SubElement(case, "system-out").text = "\n".join([message, *reading.warnings(ds)])
    ET.indent(root)
    atomic_write(as_path(path), ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def write_markdown(ds: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Headline, table, warnings and the worst pairs as a PNG beside it, which it refers to by its name; returns the PNG's path.

    GitHub shows no pictures that are inside the text (data URIs): upload the PNG beside the Markdown.

    Raises:
        StoreError: they cannot be written.
    """
    ds, path = whole(ds), as_path(path)
    picture = path.with_name(f"{path.stem}-worst.png")
    buffer = io.BytesIO()
    figure = worst_figure(ds)
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", bbox_inches="tight", dpi=110)
    atomic_write(picture, buffer.getvalue())
    lines = [
        f"### Gate: {markdown(title(ds))}",
        "",
        *(f"* {markdown(told(ds, metric))}" for metric in reading.names(ds, "metric")),
        "",
    ]
    lines += [
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
        *(f"| {' | '.join(map(markdown, row))} |" for row in rows(ds)),
        "",
    ]
    lines += [f"* Warning: {markdown(sentence)}" for sentence in reading.warnings(ds)]
    lines += [
        "",
        "Worst pairs:",
        "",
        f"![reference, candidate and difference of the worst pairs](<{picture.name}>)",
        "",
        note_of(ds),
        "",
    ]
    atomic_write(path, "\n".join(lines))
    return picture
