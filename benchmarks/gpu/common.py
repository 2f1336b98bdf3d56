"""What the three scripts share: arguments, a journal that is written at once, time limits, timing, CUDA graphs."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch


def arguments(text: str, seconds: float, **more: Any) -> argparse.Namespace:
    """--device, --quick, --out, --seconds, --only, and what a script needs beside them: name=default."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a rehearsal on a CPU")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of what is to be brought home")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="time for all; what no longer fits is skipped, by name"
    )
    parser.add_argument("--only", default="", help="only steps whose name contains this")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    chosen.device = torch.device(chosen.device)
    if chosen.quick:  # a rehearsal is to reach the end, however busy the machine
        chosen.seconds *= 20
    return chosen


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block once its time is up. A single call into C is not interrupted."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"over its limit of {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Journal:
    """One JSON line per step, printed and on the disk before the next step starts: a call that is cut off has told what it knew."""

    def __init__(self, chosen: argparse.Namespace, name: str):
        self.path, self.only = chosen.out / f"{name}.jsonl", chosen.only
        self.patience = 20 if chosen.quick else 1
        self.end, self.failed = time.monotonic() + chosen.seconds, 0
        properties = (
            torch.cuda.get_device_name(chosen.device) if chosen.device.type == "cuda" else f"{os.cpu_count()} cores"
        )
        self.write(
            {"step": "start", "torch": torch.__version__, "device": properties, "flags": flags(), "quick": chosen.quick}
        )

    def write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, default=str)
        print(text, flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n")
            os.fsync(file.fileno())

    def attempt(self, name: str, limit: float, work: Callable[[], dict[str, Any] | None]) -> None:
        """Do one step under its own limit; an error is a line and not the end. A step that finds ``ok`` false counts as failed."""
        if self.only not in name:
            return
        left, start = self.end - time.monotonic(), time.monotonic()
        if left < 1:
            return self.write({"step": name, "skipped": "no time left"})
        line: dict[str, Any] = {"step": name}
        try:
            with limited(min(limit * self.patience, left)):
                line |= work() or {}
        except Exception as error:
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-4:]
            line |= {"ok": False, "error": f"{type(error).__name__}: {str(error).strip()[:300]}", "where": where}
        self.failed += line.get("ok") is False
        self.write({**line, "seconds": round(time.monotonic() - start, 2)})
        gc.collect()  # a failed step's tensors hang on its traceback
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def flags() -> dict[str, Any]:
    """The switches of the whole process that a measurement may have forgotten to put back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "cudnn_tf32": cudnn.allow_tf32, "matmul_tf32": matmul.allow_tf32, "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark, "grad": torch.is_grad_enabled(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device, warm: int, count: int, trace: bool = False) -> dict[str, Any]:
    """Median time of one call in ms, with its 10 % and 90 % points; on a GPU by events, with peak memory and, if asked, `busy`."""
    for _ in range(warm):
        work()
    wait(device)
    found: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        wait(device)
        times = [a.elapsed_time(b) for a, b in pairwise(events)]
        found = {"peak_MiB": torch.cuda.max_memory_allocated(device) // 2**20} | (
            {"busy": busy(work, device)} if trace else {}
        )
    else:
        marks = [time.perf_counter()]
        for _ in range(count):
            work()
            marks.append(time.perf_counter())
        times = [1e3 * (b - a) for a, b in pairwise(marks)]
    return (
        dict(zip(("ms_low", "ms", "ms_high"), np.quantile(times, (0.1, 0.5, 0.9)).round(4).tolist(), strict=True))
        | found
    )


def busy(work: Callable[[], Any], device: torch.device, count: int = 5) -> float | str:
    """Share of the time in which the GPU had a kernel or a copy to do, from a trace (which slows the host, so it is a lower bound)."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
            start = time.perf_counter()
            for _ in range(count):
                work()
            wait(device)
            spent = time.perf_counter() - start
        kernels = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        return round(sum(e.time_range.elapsed_us() for e in kernels) / 1e6 / spent, 3)
    except Exception as error:  # the time that was measured is worth more than its trace
        return f"no trace: {error}"[:200]


def captured(work: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The work as one CUDA graph over the same tensors; on a CPU the work itself, so that a rehearsal goes the same way."""
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(
        side
    ):  # what is made lazily (optimizer state, tables, workspaces) must be there before the capture
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
