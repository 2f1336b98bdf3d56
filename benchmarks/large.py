"""A comparison of 8 models over 50,000 samples of 3x32x32: how long, and how much memory?

    python benchmarks/large.py --count 50000
    python benchmarks/large.py --count 20000 --models 12 --size 64

The networks are as small as can be (two convolutions each), so that what is measured is the comparison and not its models. Only the CPU is
used.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from torch import Tensor, nn

import consistency_lab as cl


class Small(nn.Module):
    """A denoiser that differs a little from seed to seed."""

    def __init__(self, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(0.1 * torch.randn(3, 3, 3, 3, generator=generator))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * t.sqrt()[:, None, None, None] + 0.1 * nn.functional.conv2d(x, self.kernel, padding=1).tanh()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    chosen = parser.parse_args()
    models = [
        cl.wrap_module(
            Small(k), schedule="linear", predicts="eps", shape=(3, chosen.size, chosen.size), time="unit", name=f"m{k}"
        )
        for k in range(chosen.models)
    ]
    start = time.process_time()
    result = cl.compare(
        models, count=chosen.count, sampler=f"ddim(steps={chosen.steps})", levels=chosen.levels, shown=8
    )
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    final = result.isel(t=-1).sel(metric="mse")
    low, score, high = (float(final[f"family_score{end}"]) for end in ("_low", "", "_high"))
    print(
        f"{chosen.models} models, {chosen.count:,} samples of {chosen.size}x{chosen.size}, {chosen.levels} levels: "
        f"score {score:.4f} ({low:.4f} to {high:.4f}), "
        f"{seconds:.0f} s of processor time, peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
