"""`RESULTS.md` from `results/ROW.json`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

HEAD = """# Measured beside its peers

`make bench` runs both sides of every row in turn on one machine, checks first that they give the same answer, and writes this page;
`make bench ROW="lpips_pairs ssim_pairs"` measures some rows again. A ratio is the peer's time by ours, the median of rounds, with the
middle half of the rounds in brackets: above 1 we are faster. On one thread times are processor time. Memory is what the work took at
its peak beyond what its process held before (libraries, inputs), ours and the peer's.

"""
CELLS = ("case", "ratio", "goal", "ours", "peer's", "memory, MiB", "differ by")

GROWTH = """`python benchmarks/growth.py`, on one thread; the exponent is the slope of the larger half of the points in log-log.

![Processor time over size, log-log](growth.png)

Memory (`python benchmarks/large.py`, 8 models, 3x32x32, 5 levels): images are held block by block, and the numbers of pairs once.
2,000 samples peak at 1.34 GB. What grows are these numbers, about 13 kB a sample, and as much again while blocks become one: 50,000 samples
(of 1x8x8, in 98 blocks, where images weigh nothing) take 1.4 GB beside the program, whose libraries are .7 GB.

`make test`: the goal of 5 CPU-minutes is missed. The 4,452 tests that there were before those of fuzz took 12 to 13, and pages and commands
were made 150 CPU-seconds cheaper; 4,693 tests took 16.5 beside another process. What is left is spread thin over training and sampling of
small models, figures and pages that are looked at, and processes that import torch.
"""


def write_page(results: Path, rows: Path) -> str:
    """The page of all rows that were measured, in the order of the files of the rows."""
    sections, places, met = [], set(), []
    for name in sorted(path.stem for path in rows.glob("*.py") if not path.stem.startswith("_")):
        row = import_module(name)
        file = results / f"{name}.json"
        measured = json.loads(file.read_text()) if file.is_file() else {}
        found = [measured[case] for case in row.CASES if case in measured]
        if not found:
            continue
        places |= {_where(each) for each in found}
        met += [_goal(row, each)[1] for each in found]
        lines = [
            "| " + " | ".join(each) + " |" for each in (CELLS, ["---"] * len(CELLS), *(_cells(row, x) for x in found))
        ]
        parts = [f"## {row.TITLE}", f"Beside {row.PEER}. `ROW={name}`", "\n".join(lines), getattr(row, "NOTE", "")]
        parts += [_profile(row, each) for each in found if each.get("profiles")]
        sections.append("\n\n".join(filter(None, parts)))
    asked = [each for each in met if each is not None]
    page = HEAD + f"Of {len(asked)} cases with a goal {sum(asked)} meet it.\n\n" + "\n\n".join(sections) + "\n"
    page += _growth(results / "growth.json")
    return page + "\n## Where\n\n" + "\n".join(sorted(places)) + "\n"


def _goal(row: Any, found: dict[str, Any]) -> tuple[str, bool | None]:
    """What a case is to reach, in words, and whether it does; None where nothing is asked of it."""
    least, most = row.GOALS.get(found["case"], row.GOALS.get("")), getattr(row, "SECONDS_GOALS", {}).get(found["case"])
    if least is None and most is None:
        return "", None
    said, reached = (
        (f"{least:g}", found["ratio"] >= least)
        if most is None
        else (f"at most {_seconds(most)}", found["seconds"][0] <= most)
    )
    return said + (" met" if reached else " **missed**"), reached


def _cells(row: Any, found: dict[str, Any]) -> list[str]:
    low, high = found["quartiles"]
    unsteady = "" if found["steady"] else f", not settled after {found['rounds']} rounds"
    ours, theirs = (_seconds(x) for x in found["seconds"])
    less = getattr(row, "MEMORY_GOALS", {})
    less = less.get(found["case"], less.get("", None))
    memory = " and ".join(f"{x:,.0f}" for x in found["work_mebibytes"])
    if less is not None:
        share = found["work_mebibytes"][1] / max(found["work_mebibytes"][0], 1)
        memory += f": {share:.0f} times less, of {less:g}" + ("" if share >= less else " **missed**")
    ratio = f"**{found['ratio']:.2f}** [{low:.2f}, {high:.2f}]{unsteady}"
    return [found["case"], ratio, _goal(row, found)[0], ours, theirs, memory, f"{found['difference']:.1g}"]


def _profile(row: Any, found: dict[str, Any]) -> str:
    """Where the time goes, ours and the peer's side by side."""
    rows = "".join(
        f"| {_share(*ours)} | {_share(*theirs)} |\n" for ours, theirs in zip(*found["profiles"], strict=False)
    )
    return f"Profile of {found['case']}, share of its time:\n\n| now | {row.PEER} |\n|---|---|\n{rows}".rstrip()


def _share(place: str, share: float) -> str:
    return f"{100 * share:.0f} % {place}".replace("|", "or")


def _growth(file: Path) -> str:
    if not file.is_file():
        return ""
    rows = [
        f"| {each['title']} | {', '.join(f'{size:,}: {_seconds(t)}' for size, t in zip(each['sizes'], each['seconds'], strict=True))} "
        f"| {each['exponent']:.2f} |\n"
        for each in json.loads(file.read_text()).values()
    ]
    return f"\n## Growth\n\n{GROWTH}\n| what | processor time | exponent |\n|---|---|---|\n{''.join(rows)}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _where(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"* {found['date']}: {found['machine']}, {found['threads']} thread(s); {versions}."
