"""How processor time grows with models, samples, noise levels, parameters and training images: log-log plots with fitted exponents.

    python benchmarks/growth.py

Writes `results/growth.json`, `growth.png` and, by way of `run.py --page`, a table in `RESULTS.md`. Times are the fastest of a few runs
on one thread. The exponent is the slope of the last half of the points, where what does not grow weighs least.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import consistency_lab as cl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
REPEATS = 3
Work = Callable[[], object]


def gaussians(models: int, side: int = 8) -> list[cl.DiffusionModel]:
    """Denoisers that cost next to nothing, so that the comparison is what takes the time."""
    from consistency_lab.diffusion.references import closed_form
    from consistency_lab.diffusion.schedule import SCHEDULES

    generator, schedule = torch.Generator().manual_seed(0), SCHEDULES.build("linear")
    shared = torch.randn(64, 1, side, side, generator=generator)
    sets = [(shared + 0.3 * torch.randn(shared.shape, generator=generator)).clamp(-1, 1) for _ in range(models)]
    return [cl.DiffusionModel(f"m{k}", closed_form("gaussian", each, schedule)) for k, each in enumerate(sets)]


def comparing(models: int = 4, samples: int = 256, levels: int = 5) -> Work:
    made = gaussians(models)
    return lambda: cl.compare(made, count=samples, levels=levels, sampler="ddim(steps=40)", shown=1)


def training_steps(width: int) -> Work:
    images = cl.load_images("digits")

    def work() -> object:
        return cl.train(images, network=f"unet(width={width})", seed=0, steps=4, batch=32, progress=False)

    return work


def nearest_images(images: int) -> Work:
    from consistency_lab.metrics.distances import nearest

    generator = torch.Generator().manual_seed(0)
    made, pool = (torch.randn(count, 3, 16, 16, generator=generator).clamp(-1, 1) for count in (64, images))
    return lambda: nearest(made, pool)


def optimal(images: int) -> Work:
    from consistency_lab.diffusion.references import closed_form
    from consistency_lab.diffusion.schedule import SCHEDULES

    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(images, 3, 16, 16, generator=generator).clamp(-1, 1)
    denoiser = closed_form("optimal", pool, SCHEDULES.build("linear"))
    z = torch.randn(64, 3, 16, 16, generator=generator)
    return lambda: denoiser(z, 0.3)


GROWTHS: dict[str, tuple[str, list[int], Callable[[int], Work]]] = {
    "models": ("`compare`, 256 samples, 5 levels, K models", [4, 8, 16, 32], lambda k: comparing(models=k)),
    "samples": ("`compare`, 4 models, 5 levels, N samples", [256, 512, 1024, 2048], lambda n: comparing(samples=n)),
    "levels": ("`compare`, 4 models, 256 samples, T levels", [5, 10, 20, 40], lambda t: comparing(levels=t)),
    "parameters": ("4 training steps of a U-Net, by its parameters", [8, 16, 32, 64], training_steps),
    "nearest": ("nearest of n training images, for 64", [2000, 4000, 8000, 16000], nearest_images),
    "optimal": ("the optimal denoiser over n images, for 64", [2000, 4000, 8000, 16000], optimal),
}


def measured(name: str) -> dict[str, object]:
    title, sizes, make = GROWTHS[name]
    seconds = []
    for size in sizes:
        work = make(size)
        taken = []
        for _ in range(REPEATS):
            start = time.process_time()
            found = work()
            taken.append(time.process_time() - start)
        seconds.append(min(taken))
        if name == "parameters":
            sizes[sizes.index(size)] = found.facts["parameters"]  # type: ignore[attr-defined]
        print(f"{name} {size}: {seconds[-1]:.3f} s", flush=True)
    half = len(sizes) // 2
    slope = np.polyfit(np.log(sizes[-half:]), np.log(seconds[-half:]), 1)[0]
    return {"title": title, "sizes": sizes, "seconds": seconds, "exponent": float(slope)}


def draw(found: dict[str, dict[str, object]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
    for ax, (name, each) in zip(axes.flat, found.items(), strict=False):
        ax.loglog(each["sizes"], each["seconds"], marker="o", color="#1f5fae")
        ax.set_title(str(each["title"]).replace("`", ""), fontsize=9)
        ax.set_xlabel({"nearest": "training images", "optimal": "training images"}.get(name, name))
        ax.set_ylabel("processor time, s")
        ax.minorticks_off()
        ax.set_xticks(each["sizes"], [f"{size:,}" for size in each["sizes"]])
        ax.set_yticks(each["seconds"], [f"{taken:.2g}" for taken in each["seconds"]])
        ax.text(0.05, 0.9, f"exponent {each['exponent']:.2f}", transform=ax.transAxes)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(GROWTHS)}; all by default")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "results" / "growth.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    for name in chosen.names or GROWTHS:
        found[name] = measured(name)
        file.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, HERE / "growth.png")


if __name__ == "__main__":
    main()
