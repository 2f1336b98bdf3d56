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

| row | case | peer | ratio | goal | ours | peer's | memory, MiB | differ by |
|---|---|---|---|---|---|---|---|---|
"""


GROWTH = """`python benchmarks/growth.py`, on one thread; the exponent is the slope of the larger half of the points in log-log.

![Processor time over size, log-log](growth.png)
"""


def write_page(results: Path, rows: Path) -> str:
    """The page of all rows that were measured, in the order of the files of the rows."""
    lines, notes, profiles, places = [], [], [], set()
    for name in sorted(path.stem for path in rows.glob("*.py") if not path.stem.startswith("_")):
        row = import_module(name)
        file = results / f"{name}.json"
        measured = json.loads(file.read_text()) if file.is_file() else {}
        found = [measured[case] for case in row.CASES if case in measured]
        places |= {_where(each) for each in found}
        lines += [_line(row, each) for each in found]
        if found and getattr(row, "NOTE", ""):
            notes.append(f"* **{row.TITLE}.** {row.NOTE}")
        profiles += [_profile(row, each) for each in found if each.get("profiles")]
    page = HEAD + "\n".join(lines) + "\n"
    page += "".join(profiles) + _growth(results / "growth.json")
    if notes:
        page += "\n## What stands behind the rows\n\n" + "\n".join(notes) + "\n"
    return page + "\n## Where\n\n" + "\n".join(sorted(places)) + "\n"


def _line(row: Any, found: dict[str, Any]) -> str:
    low, high = found["quartiles"]
    unsteady = "" if found["steady"] else f", not settled after {found['rounds']} rounds"
    goal = row.GOALS.get(found["case"], row.GOALS.get("", None))
    met = "" if goal is None else f"{goal:g}" + (" met" if found["ratio"] >= goal else " **missed**")
    most = getattr(row, "SECONDS_GOALS", {}).get(found["case"])
    if most is not None:
        met = f"at most {_seconds(most)}" + (" met" if found["seconds"][0] <= most else " **missed**")
    ours, theirs = (_seconds(x) for x in found["seconds"])
    less = getattr(row, "MEMORY_GOALS", {})
    less = less.get(found["case"], less.get("", None))
    memory = " and ".join(f"{x:,.0f}" for x in found["work_mebibytes"])
    if less is not None:
        share = found["work_mebibytes"][1] / max(found["work_mebibytes"][0], 1)
        memory += f": {share:.0f} times less, of {less:g}" + ("" if share >= less else " **missed**")
    cells = [row.TITLE, found["case"], row.PEER, f"**{found['ratio']:.2f}** [{low:.2f}, {high:.2f}]{unsteady}", met]
    return "| " + " | ".join([*cells, ours, theirs, memory, f"{found['difference']:.1g}"]) + " |"


def _profile(row: Any, found: dict[str, Any]) -> str:
    """Where the time goes, ours and the peer's side by side."""
    rows = "".join(
        f"| {_share(*ours)} | {_share(*theirs)} |\n" for ours, theirs in zip(*found["profiles"], strict=False)
    )
    return f"\n**Profile: {found['case']}**\n\n| now | {row.PEER} |\n|---|---|\n{rows}"


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
