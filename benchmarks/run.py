"""Measure this package beside its peers, and beside earlier builds of itself: `make bench`, or `make bench ROW="lpips ssim"`.

Each side of a row lives in a process of its own and is asked in turn, so that both meet the same machine; their answers are compared before
anything is timed. A row is repeated until the middle half of its ratios lies within 15 % of their median, or the rounds are used up, which
is then said. `results/ROW.json` keeps what was measured; `RESULTS.md` is written from all of them (`--page` does that alone).

On one thread a side's time is the processor time of its process and of those that it starts, which a busy machine does not lengthen; on
more it is the clock's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from datetime import date
from importlib import import_module, metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from render import write_page

from consistency_lab.devices import processor_name

HERE = Path(__file__).resolve().parent
STEADY = 0.15  # of the median ratio: the width of the middle half of the ratios of a row that is settled


class Side:
    """One side of a row in a process of its own: ``ours`` or ``theirs`` of the row's module, with that package on the path."""

    def __init__(self, row: str, case: str, side: str, package: Path, threads: int):
        paths = os.pathsep.join([str(package), str(HERE / "rows"), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [sys.executable, str(HERE / "worker.py"), row, case, side, str(threads)]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"a side of the row ended by itself with status {self._process.wait()}; its message stands above."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate("end\n")


def measure(name: str, case: str, rounds: int, threads: int, earlier: Path | None) -> dict[str, Any]:
    """One case of a row, both sides in turn."""
    row = import_module(name)
    before = getattr(row, "BEFORE", None)
    sides = [Side(name, case, "ours", HERE.parent, threads)]
    sides.append(
        Side(name, case, "ours" if before else "theirs", earlier if before and earlier else HERE.parent, threads)
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / "ours.npz", Path(folder) / "theirs.npz"]
            for side, file in zip(sides, files, strict=True):
                side.ask(f"answer {file}")
            difference = _difference(*files)
        if difference > row.TOLERANCE:
            raise SystemExit(
                f"{name} ({case}): the two sides differ by {difference:.3g}, more than {row.TOLERANCE:g}; nothing was timed."
            )
        seconds: list[list[float]] = [[], []]
        for done in range(rounds):
            for k in (0, 1) if done % 2 else (1, 0):
                seconds[k].append(sides[k].ask("time")["seconds"])
            ratios = [b / a for a, b in zip(*seconds, strict=True)]
            if done >= 4 and _spread(ratios) < STEADY:
                break
        peaks = [side.ask("peak") for side in sides]
        profiles = [side.ask("profile")["profile"] for side in sides] if getattr(row, "PROFILE", False) else None
    finally:
        for side in sides:
            side.close()
    return {
        "row": name,
        "case": case,
        "seconds": [median(each) for each in seconds],
        "ratio": median(ratios),
        "quartiles": quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2,
        "rounds": len(ratios),
        "steady": _spread(ratios) < STEADY,
        "peak_mebibytes": [each["mebibytes"] for each in peaks],
        "work_mebibytes": [each["work"] for each in peaks],
        "profiles": profiles,
        "difference": difference,
        "threads": threads,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {processor_name()}",
        "versions": {each: metadata.version(each) for each in ("torch", "numpy", *getattr(row, "PACKAGES", ()))},
    }


def _difference(first: Path, second: Path) -> float:
    """The largest difference of any answer, relative to its largest value."""
    with np.load(first) as ours, np.load(second) as theirs:
        if set(ours) != set(theirs) or not ours:
            raise SystemExit(f"the two sides answer other things: {sorted(ours)} and {sorted(theirs)}.")
        return max(
            float(np.abs(ours[key] - theirs[key]).max() / max(np.abs(theirs[key]).max(), 1e-300)) for key in ours
        )


def _spread(ratios: list[float]) -> float:
    if len(ratios) < 2:
        return float("inf")
    low, _, high = quantiles(ratios, n=4)
    return (high - low) / median(ratios)


def checkout(commit: str, folder: Path) -> Path:
    """The package as it was at a commit of this repository."""
    packed = subprocess.run(
        ["git", "archive", commit, "consistency_lab"], cwd=HERE.parent, capture_output=True, check=False
    )
    if packed.returncode:
        raise SystemExit(
            f"the commit {commit} is not here ({packed.stderr.decode().strip()}); fetch the whole history."
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def main() -> None:
    known = sorted(path.stem for path in (HERE / "rows").glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--rounds", type=int, default=40, help="at most so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="measure nothing, write RESULTS.md from what is there")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results/ and RESULTS.md")
    options = parser.parse_args()
    if strange := set(options.rows) - set(known):
        parser.error(f"no row {sorted(strange)[0]!r}; the rows are {', '.join(known)}.")
    sys.path.insert(0, str(HERE / "rows"))
    folder = options.out / "results"
    folder.mkdir(exist_ok=True)
    for name in () if options.page else options.rows or known:
        row = import_module(name)
        results = {}
        with tempfile.TemporaryDirectory() as packages:
            earlier = checkout(row.BEFORE, Path(packages)) if hasattr(row, "BEFORE") else None
            for case in row.CASES:
                found = results[case] = measure(name, case, options.rounds, options.threads, earlier)
                low, high = found["quartiles"]
                print(f"{name}, {case}: {found['ratio']:.2f} ({low:.2f} to {high:.2f})", flush=True)
        (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "RESULTS.md").write_text(write_page(folder, HERE / "rows"))


if __name__ == "__main__":
    main()
