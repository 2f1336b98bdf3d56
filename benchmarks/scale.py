"""What a study of large models costs on so many GPUs, and from how many on more do not help: a calculation, not a measurement.

    python benchmarks/scale.py
    python benchmarks/scale.py --milliseconds unet-ddpm=21 dit-s2=14 uvit-s=30     (steps that were measured on the GPU that is meant)
    python benchmarks/scale.py --size 64 --gpus 1 8 64 --seeds 8

Work a step is counted by torch's flop counter on the networks themselves. Time is that work by a share of a GPU's peak, unless it is given.
Jobs are handed to GPUs as studies do it: the next job to the next GPU that is free. Durations scatter as those of recorded runs do.
"""

from __future__ import annotations

import argparse
import heapq
import json
from pathlib import Path
from statistics import mean, median, pstdev

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from consistency_lab.networks.registry import build_network

PEAK = 989e12  # dense bfloat16 of an H100 SXM, FLOP/s, as its maker gives it


def work_of(network: str, shape: tuple[int, int, int]) -> tuple[float, float]:
    """FLOPs of one image forward and backward, and parameters in millions."""
    module = build_network(network, shape, 0, 0)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, *shape), torch.full((1,), 0.5), None).sum().backward()
    return float(counter.get_total_flops()), sum(p.numel() for p in module.parameters()) / 1e6


def spread_of(store: Path) -> float:
    """Standard deviation of the durations of recorded runs by their mean, within runs of one network and length; 0.03 without any."""
    groups: dict[str, list[float]] = {}
    for done in store.glob("model-*/done.json"):
        spec = json.loads((done.parent / "spec.json").read_text())["spec"]["settings"]
        key = f"{spec['network']}{spec['steps']}{spec['batch']}"
        groups.setdefault(key, []).append(json.loads(done.read_text())["seconds"])
    found = [pstdev(each) / mean(each) for each in groups.values() if len(each) > 2]
    return median(found) if found else 0.03


def makespan(durations: list[float], gpus: int) -> tuple[float, float]:
    """Hours until the last job ends, and the share of the GPUs' time that is spent on jobs: the longest job first."""
    free = [0.0] * gpus
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(free, free[0] + duration)
    return max(free), sum(durations) / (gpus * max(free))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["unet-ddpm", "dit-s2", "uvit-s"])
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=800_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8, 12, 16, 64])
    parser.add_argument("--utilisation", type=float, default=0.25, help="share of the peak that training reaches")
    parser.add_argument("--milliseconds", nargs="*", default=[], help="NAME=MS of a step, where it was measured")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="recorded runs, whose durations scatter")
    chosen = parser.parse_args()
    known = {name: float(value) for name, _, value in (text.partition("=") for text in chosen.milliseconds)}
    shape, spread, rng = (chosen.channels, chosen.size, chosen.size), spread_of(chosen.store), np.random.default_rng(0)
    hours = []
    print("| network | parameters, M | GFLOP an image | ms a step | GPU-hours a run |\n|---|---|---|---|---|")
    for name in chosen.networks:
        flops, parameters = work_of(name, shape)
        step = known.get(name, 1e3 * chosen.batch * flops / (PEAK * chosen.utilisation))
        each = step / 1e3 * chosen.steps / 3600
        hours += [each] * chosen.seeds
        print(f"| {name} | {parameters:.1f} | {flops / 1e9:.1f} | {step:.1f} | {each:.1f} |")
    print(f"\n{len(hours)} runs, {sum(hours):.0f} GPU-hours; durations scatter by {100 * spread:.1f} %.\n")
    print("| GPUs | hours | busy |\n|---|---|---|")
    for gpus in chosen.gpus:
        trials = [
            makespan([h * float(np.exp(spread * rng.standard_normal())) for h in hours], gpus) for _ in range(200)
        ]
        print(f"| {gpus} | {mean(t for t, _ in trials):.1f} | {100 * mean(b for _, b in trials):.0f} % |")


if __name__ == "__main__":
    main()
