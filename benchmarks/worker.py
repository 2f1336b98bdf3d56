"""One side of a row, asked line by line on the standard input (see `run`): answer FILE, time, peak, profile, end."""

from __future__ import annotations

import cProfile
import gc
import json
import pstats
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    row, case, side, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    import numpy as np
    import torch

    torch.set_num_threads(int(threads))
    work = getattr(import_module(row), side)(case)  # what is made beforehand is not timed
    clock = _processor_time if threads == "1" else time.perf_counter
    before = _forget_peak()
    for line in sys.stdin:
        what, _, rest = line.strip().partition(" ")
        if what == "end":
            return
        said: dict[str, Any] = {}
        if what == "answer":
            np.savez(rest, **{key: np.asarray(value) for key, value in work().items()})
        elif what == "time":
            gc.collect()
            begin = clock()
            work()
            said = {"seconds": clock() - begin}
        elif what == "profile":
            said = _profile(work)
        elif what == "peak":
            peak = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            said = {"mebibytes": peak, "work": peak - before}
        print(json.dumps(said), file=answers, flush=True)


def _profile(work: Callable[[], object]) -> dict[str, Any]:
    """The functions in which most of the time is spent, each with its share of all, the dearest first."""
    profile = cProfile.Profile()
    profile.runcall(work)
    table = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # (file, line, name): calls, ..., own time, time, callers
    whole = sum(entry[2] for entry in table.values())
    dearest = sorted(table.items(), key=lambda item: -item[1][2])[:6]
    return {"profile": [[_place(*key), entry[2] / whole] for key, entry in dearest]}


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        return name.strip("<>").replace("built-in method ", "").replace("method ", "").split(" of ")[0].strip("'")
    return f"{'/'.join(Path(file).parts[-2:])}: {name}"


def _processor_time() -> float:
    """Of this process and of those that it started and has seen end."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _forget_peak() -> float:
    """The resident set in MiB, from which on a new peak is kept (Linux; elsewhere the peak so far)."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return _status("VmRSS")


def _status(name: str) -> float:
    """A line of /proc/self/status in MiB; 0 where there is none."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":")), 0.0)


if __name__ == "__main__":
    main()
