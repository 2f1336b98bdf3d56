"""The page on what a result holds names every variable and coordinate of real results."""

import re
from pathlib import Path

import pytest
import real_results

from consistency_lab.intervals import is_bound

PAGE = (Path(__file__).parents[2] / "docs" / "what-a-result-holds.md").read_text("utf-8")
MARKED = set(re.findall(r"`([A-Za-z_]+)`", PAGE)) | set(re.findall(r"`([A-Za-z_]+) \(", PAGE))
COMMON = {"image", "shown", "channel", "row", "column"}


def named(ds):
    """The names of a result that a reader meets: ends of intervals belong to their estimate, pixels need no words."""
    every = {str(name) for name in ds.variables if not is_bound(name)}
    return {re.sub(r"^(swap|handoff)_(?!log_snr)", "", name) for name in every} - COMMON


@pytest.mark.parametrize("kind", ["comparison", "gate", "difficulty", "structure", "landscape", "curvature"])
def test_every_variable_is_on_the_page(kind):
    missing = {name for name in named(getattr(real_results, kind)()) if name not in MARKED}
    assert not missing


def test_the_page_names_nothing_that_is_not_there():
    held = set().union(*(named(getattr(real_results, kind)()) for kind in ("comparison",)))
    table = PAGE.split("## A comparison")[1].split("With `labels`")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} <= held
