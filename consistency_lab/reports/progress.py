"""A page that shows how far long work is: plain HTML that asks to be read again while the work goes on, and no longer than that."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

from consistency_lab.markup import percent
from consistency_lab.progress import Board, Job, duration

REFRESH = 5  # seconds
_STYLE = """
:root { color-scheme: light dark; --page: #f4f6f8; --card: #fff; --edge: #dfe3e8; --ink: #1c2430; --muted: #5b6675; --bar: #2f6db5; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12151a; --card: #1b2027; --edge: #333b47; --ink: #e6e9ee; --muted: #a3adba; --bar: #6ea8e8; }
}
body { margin: 0 auto; max-width: 1120px; padding: 20px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; } .muted { color: var(--muted); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 8px 16px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th { color: var(--muted); font-weight: 500; } td.number { text-align: right; }
progress { width: 120px; accent-color: var(--bar); }
"""


def progress_page(board: Board, title: str, now: float | None = None) -> str:
    """The page as it is now. It loads nothing and runs nothing; while the work goes on it is read again every `REFRESH` seconds."""
    now = time.time() if now is None else now
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">\n' if board.ended is None else ""
    rows = "\n".join(_row(job, now) for job in board.jobs)
    notes = "\n".join(f"<li>{_clock(at)} {escape(line)}</li>" for at, line in reversed(board.notes))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("job", "state", "", "step", "loss", "time left"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}: progress</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(headline(board, now))}</p>
<div class="scroll" role="region" aria-label="jobs" tabindex="0">
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<h2>What was said last</h2>
<ul>
{notes}
</ul>
<p class="muted">{escape(_written(board, now))}</p>
</main>
</body>
</html>
"""


def headline(board: Board, now: float) -> str:
    """How many jobs are in each state, and for how long the work has gone on."""
    states: dict[str, int] = {}
    for job in board.jobs:
        states[job.state] = states.get(job.state, 0) + 1
    counted = ", ".join(f"{count} {state}" for state, count in states.items()) or "no job yet"
    until = now if board.ended is None else board.ended
    what = "running for" if board.ended is None else "stopped after" if board.stopped else "ended after"
    why = f": {board.stopped}" if board.stopped else ""
    return f"{counted}; {what} {duration(until - board.began)}{why}"


def write_progress(board: Board, title: str, path: Path) -> None:
    """Write the page, whole or not at all. Raises `StoreError` if it cannot be written."""
    from consistency_lab.store.atomic import atomic_write

    atomic_write(path, progress_page(board, title))


def _row(job: Job, now: float) -> str:
    share = job.step / job.steps if job.steps else 0.0
    left, loss = job.seconds_left(now), "" if job.loss is None else f"{job.loss:.4g}"
    name, bar = (
        escape(job.name),
        f'<progress max="1" value="{share:.4f}" aria-label="{escape(job.name, quote=True)}"></progress>',
    )
    cells = [f"{job.step:,} of {job.steps:,} ({percent(share)})", loss, "" if left is None else duration(left)]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{name}</th><td>{escape(job.state)}</td><td>{bar}</td>{numbers}</tr>'


def _written(board: Board, now: float) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    if board.ended is None:
        return f"Written at {at}, and again every few seconds; where that is long ago, the work was killed."
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(board.ended))
    return f"The work {'was stopped' if board.stopped else 'ended'} at {ended}; written at {at}, for the last time."


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
