"""Faults put into files of every kind, and what becomes of the numbers in them.

``python tests/helpers/faults.py --count 1000 --seed 0`` makes a few small real files in a temporary folder, damages one of them a thousand
times, each time from its whole state, reads it as the package does, and counts. Exit status 1 if any fault ended in a wrong number, in a
lost run, or in a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import consistency_lab as cl
from consistency_lab.errors import DamagedError, UserError
from consistency_lab.gates.baseline import Baseline
from consistency_lab.paper.rows import Rows
from consistency_lab.store.checkpoint import load_state
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.run_io import final_weights, snapshots_of
from consistency_lab.training.stopping import Stopped

FAULTS = ("bit flip", "truncation", "zeroed block", "swapped", "unreadable")
OUTCOMES = ("named", "as written", "made again", "WRONG", "TRACEBACK")
TINY: dict[str, Any] = {
    "network": "mlp(width=16, depth=1)",
    "steps": 50,
    "batch": 16,
    "snapshots": 2,
    "device": "cpu",
    "progress": False,
}


@dataclass(frozen=True)
class Subject:
    """A file, how its numbers are read, and what could be put in its place.

    Attributes:
        path: of the file.
        read: what the package makes of it.
        others: files of the same kind that belong elsewhere; none for one that stands alone and is what it says.
        shortens: whether the end of it may be missing for what it can tell: then what is missing is made again, and the rest must be right.
    """

    path: Path
    read: Callable[[], Any]
    others: tuple[Path, ...] = ()
    shortens: bool = False


def subjects(root: Path) -> dict[str, Subject]:
    """A small store with finished and unfinished runs, and files that stand alone, by kind of file."""
    images = cl.load_images("digits").take(range(100), "some digits")
    store = Store(root / "runs")
    models = [cl.train(images, **TINY, seed=seed, store=store) for seed in range(2)]
    one, other = (Run.open(model.folder) for model in models)
    stopped = [_unfinished(images, store, seed) for seed in (2, 3)]
    result = cl.compare(models, cl.SharedNoise(0), count=4, sampler="ddim(steps=2)", metrics=["mse"])
    for name in ("c0", "c1"):
        store.result("comparison", name, {"of": name}, lambda name=name: result.assign_attrs(title=name))
    kept = [store.find(name).folder / "result.nc" for name in ("c0", "c1")]
    cl.save_result(result, root / "result.nc")
    cl.Recipe.paper().save(root / "recipe.json")
    Baseline({"mse": {"value": 0.9, "low": 0.8, "high": 0.95}}, 0.01, {"samples": 64}).save(root / "baseline.json")
    rows = Rows(root / "rows.jsonl")
    for i in range(8):
        rows.row({"row": i}, lambda i=i: {"score": i / 7, "curve": [i / 3, i / 9]})
    first, second = (path for path in sorted((one.folder / "snapshots").iterdir()))
    ema, logs = "ema.safetensors", "metrics.jsonl"

    def never() -> xr.Dataset:
        raise AssertionError("a result that is there was computed again")

    return {
        "weights": Subject(
            one.folder / ema,
            lambda: final_weights(_found(store, one), "ema")[0],
            (other.folder / ema, one.folder / "raw.safetensors", second),
        ),
        "snapshot": Subject(
            first,
            lambda: [(step, weights) for step, weights, _ in snapshots_of(_found(store, one))],
            (second, other.folder / "snapshots" / first.name, one.folder / ema),
        ),
        "checkpoint": Subject(
            stopped[0].folder / "checkpoint.pt",
            lambda: load_state(stopped[0].folder / "checkpoint.pt", of=stopped[0]),
            (stopped[1].folder / "checkpoint.pt",),
        ),
        "log": Subject(one.folder / logs, lambda: _found(store, one).records(), (other.folder / logs,)),
        "log, unfinished": Subject(
            stopped[0].folder / logs, lambda: stopped[0].records(), (other.folder / logs,), shortens=True
        ),
        "spec.json": Subject(
            one.folder / "spec.json", lambda: _told(store.find("mlp-s0")), (other.folder / "spec.json",)
        ),
        "done.json": Subject(
            one.folder / "done.json", lambda: _found(store, one).summary, (other.folder / "done.json",)
        ),
        "result": Subject(root / "result.nc", lambda: cl.load_result(root / "result.nc")),
        "result in a store": Subject(
            kept[0], lambda: store.result("comparison", "c0", {"of": "c0"}, never), (kept[1],)
        ),
        "rows": Subject(root / "rows.jsonl", lambda: Rows(root / "rows.jsonl").finished(), shortens=True),
        "recipe": Subject(root / "recipe.json", lambda: cl.Recipe.load(root / "recipe.json")),
        "baseline": Subject(root / "baseline.json", lambda: Baseline.read(root / "baseline.json")),
    }


def _unfinished(images: cl.ImageSet, store: Store, seed: int) -> Run:
    """A run that was stopped at step 30, with its checkpoint."""

    def stop(record: dict[str, Any]) -> None:
        raise Stopped("by hand")

    with contextlib.suppress(Stopped):
        cl.train(images, **TINY, seed=seed, store=store, callback=stop)
    return store.find(f"mlp-s{seed}")


def _found(store: Store, run: Run) -> Run:
    return store.find(run.folder)


def _told(run: Run) -> tuple[Any, ...]:
    return run.kind, run.name, run.spec, run.numerics_version, run.hash, run.folder


def changed(whole: bytes, fault: str, rng: random.Random) -> bytes:
    """Those bytes with a fault; as they are where the fault is none of bytes. None are left of none."""
    content = bytearray(whole)
    if not content:
        return whole
    if fault == "bit flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif fault == "truncation":
        del content[rng.randrange(len(content)) :]
    elif fault == "zeroed block":
        start, length = rng.randrange(len(content)), rng.choice([1, 16, 512, 4096])
        content[start : start + length] = bytes(len(content[start : start + length]))
    return bytes(content)


def inject(subject: Subject, fault: str, rng: random.Random) -> None:
    """Put one fault into the file."""
    path = subject.path
    content = rng.choice(subject.others).read_bytes() if fault == "swapped" else changed(path.read_bytes(), fault, rng)
    path.unlink()  # what was read of it is mapped
    if fault == "unreadable":
        path.symlink_to("/proc/self/mem")  # a regular file of which every read is an I/O error, for the superuser too
    else:
        path.write_bytes(content)


def outcome(subject: Subject, fault: str, whole: Any) -> str:
    """What reading the file gives now, beside what it gave when it was whole."""
    try:
        found = subject.read()
    except DamagedError:
        return "WRONG" if fault == "unreadable" else "named"  # it says nothing of what the file holds
    except UserError:
        return "named"
    except Exception:
        return "TRACEBACK"
    if same(found, whole):
        return "as written"
    if subject.shortens and same(found, whole[: len(found)]):
        return "made again"
    return "WRONG"


def same(a: Any, b: Any) -> bool:
    """Whether two readings are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
    if isinstance(a, xr.Dataset):
        return a.identical(b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b) or (isinstance(a, float) and np.isnan(a) and isinstance(b, float) and np.isnan(b))


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return flat.copy_(tensor.reshape(-1)).view(torch.uint8).numpy().tobytes()


def plan(made: dict[str, Subject], count: int) -> Iterator[tuple[str, str]]:
    """``count`` pairs of a file and a fault, every possible pair in turn; flips three times as often."""
    often = (FAULTS[0], *FAULTS[:1], *FAULTS)
    pairs = [(name, fault) for fault in often for name, each in made.items() if fault != "swapped" or each.others]
    pairs = [pair for pair in pairs if pair[1] != "unreadable" or os.path.exists("/proc/self/mem")]
    return itertools.islice(itertools.cycle(pairs), count)


def run_faults(count: int, seed: int = 0) -> Counter[tuple[str, str, str]]:
    """Inject that many faults, one at a time: how often each file, fault and outcome occurred."""
    rng, counts = random.Random(seed), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        made = subjects(Path(folder))
        whole = {name: subject.read() for name, subject in made.items()}
        for name, fault in plan(made, count):
            subject = made[name]
            before = subject.path.read_bytes()
            inject(subject, fault, rng)
            counts[name, fault, outcome(subject, fault, whole[name])] += 1
            subject.path.unlink()
            subject.path.write_bytes(before)
        for name, subject in made.items():
            assert same(subject.read(), whole[name]), name
    return counts


def train_over_faults(count: int, seed: int = 0) -> Counter[tuple[str, str, str]]:
    """Damage a file of a finished run, then ask for that run: the weights must be the same, and every file that was there must still be."""
    rng, counts = random.Random(seed), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        images, store = cl.load_images("digits").take(range(100), "some digits"), Path(folder, "runs")
        model = cl.train(images, **TINY, store=store)
        (model.folder / "notes.txt").write_text("mine")
        whole = final_weights(Run.open(model.folder), "ema")[0]
        shutil.copytree(store, Path(folder) / "kept")
        names = ["ema.safetensors", "raw.safetensors", "done.json", "spec.json", "metrics.jsonl"]
        for number in range(count):
            subject = Subject(model.folder / names[number % len(names)], lambda: None)
            fault = rng.choice([fault for fault in FAULTS if fault != "swapped"])
            inject(subject, fault, rng)
            before = _contents(store)
            try:
                again = final_weights(Run.open(cl.train(images, **TINY, store=store).folder), "ema")[0]
                said = "as written" if same(again, whole) else "WRONG"
            except UserError:
                said = "named"
            except Exception:
                said = "TRACEBACK"
            if not before <= _contents(store):
                said = "WRONG"
            counts["a finished run, trained again", fault, said] += 1
            shutil.rmtree(store)
            shutil.copytree(Path(folder) / "kept", store)
    return counts


def _contents(store: Path) -> set[bytes]:
    return {path.read_bytes() for path in store.rglob("*") if path.is_file() and not path.is_symlink()}


def table(counts: Counter[tuple[str, str, str]], outcomes: Sequence[str] = OUTCOMES) -> str:
    """The counts as a Markdown table: a line for each kind of file, and one for each fault."""
    lines = [f"| | faults | {' | '.join(outcomes)} |", f"|---|{'---:|' * (1 + len(outcomes))}"]
    for part in (0, 1):
        for name in dict.fromkeys(key[part] for key in counts):
            each = [sum(n for key, n in counts.items() if key[part] == name and key[2] == out) for out in outcomes]
            lines.append(f"| {name} | {sum(each)} | {' | '.join(map(str, each))} |")
    return "\n".join(lines)


def bad(counts: Counter[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
    """What must not happen."""
    return {key: n for key, n in counts.items() if key[2] in ("WRONG", "TRACEBACK")}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000, help="faults in files that are read")
    options.add_argument("--train", type=int, default=50, help="faults in finished runs that are trained again")
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    counts = run_faults(asked.count, asked.seed) + train_over_faults(asked.train, asked.seed)
    print(table(counts))
    for key, number in bad(counts).items():
        print(*key, number)
    return 1 if bad(counts) else 0


if __name__ == "__main__":
    sys.exit(main())
