"""Two seeds of one U-Net on a set of images, for so many seconds each, and what the package says of the pair.

python pair.py --data cifar.npz --lpips squeeze.pth --store runs --out out --part train    (goes on where it was stopped)
python pair.py --data cifar.npz --lpips squeeze.pth --store runs --out out --part measure
python pair.py --device cpu --quick                                                        (a rehearsal)

The runs are kept in --store, by default in the folder of --out.

--network small is a U-Net of 6.5 million weights; its averaged weights come home as float16, 12.9 MB a model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from common import Journal, arguments, wait

import consistency_lab as cl
from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import described
from consistency_lab.similarity.frozen import compare_frozen
from consistency_lab.similarity.trajectories import WalkCache
from consistency_lab.store.checkpoint import save_tensors
from consistency_lab.store.run import Run
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.train import DenoisingBatches, build_denoiser, training_spec

NETWORKS = {
    "paper": "unet-ddpm",  # 35.7 million weights: 143 MB a model, measured where it was trained
    "small": "unet-ddpm(width=64, multipliers=(1, 2, 2))",
    "quick": "unet-ddpm(width=8, groups=4, multipliers=(1, 2), blocks=1)",
}
FP16_LIMIT = 14e6  # bytes of a file of weights that is brought home
SEEDS = (0, 1)
SHOWN = ("score", "score_low", "score_high", "ceiling_score", "barrier", "relative_barrier", "curvature", "eigenvalue")


def planned(images: ImageSet, chosen) -> cl.TrainingSettings:
    """The settings, with as many steps as fit: measured once and kept beside the runs, so that a second call goes on with the same."""
    plan = Path(chosen.store) / f"plan-{chosen.network}.json"
    settings = cl.TrainingSettings(
        network=NETWORKS[chosen.network], batch=8 if chosen.quick else 128, lr=2e-4, lr_warmup=500, precision="bfloat16",
        snapshots=6, steps=100_000,
    )  # fmt: skip
    if not plan.exists():
        denoiser = build_denoiser(training_spec(images, settings, chosen.device)).to(chosen.device)
        steps = iter(
            TrainingLoop(
                denoiser, cl.denoising_loss, DenoisingBatches(images, settings, chosen.device), settings, chosen.device
            )
        )
        warm, count = (1, 2) if chosen.quick else (30, 100)
        for _ in range(warm):
            next(steps)
        wait(chosen.device)
        start = time.perf_counter()
        for _ in range(count):
            next(steps)
        wait(chosen.device)
        each = (time.perf_counter() - start) / count
        total = (
            25 if chosen.quick else int(0.95 * chosen.train / each) // 100 * 100
        )  # some of the time goes to snapshots
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps({"steps": max(total, 25), "seconds_a_step": each, "seconds": chosen.train}))
    return settings.replace(steps=json.loads(plan.read_text())["steps"])


class Pair:
    """Two seeds in a store, what is measured on them, and the folder that is brought home."""

    def __init__(self, chosen: argparse.Namespace, images: ImageSet):
        self.chosen, self.images, self.known = chosen, images, WalkCache()
        self.models: dict[int, cl.DiffusionModel] = {}
        self.results: dict[str, xr.Dataset] = {}

    def train(self, seed: int, settings: cl.TrainingSettings) -> dict:
        """Train a seed, or load it where it is trained already; its log comes home."""
        name, told = f"{self.chosen.network}-s{seed}", {"store": self.chosen.store, "device": self.chosen.device}
        self.models[seed] = model = cl.train(
            self.images, name=name, settings=settings.replace(seed=seed), progress=False, **told
        )
        records = Run.open(model.folder).records()
        log = json.dumps({"model": described(model), "log": records}, default=str)
        (self.chosen.out / f"training-{name}.json").write_text(log)
        return {"steps": settings.steps, "training_seconds": records[-1]["seconds"], "last_loss": records[-1]["loss"]}

    def bring_home(self, seed: int) -> dict:
        """The averaged weights in float16, if they are small enough, with the spec that builds their network."""
        model = self.models[seed]
        half = {key: value.half() for key, value in model.denoiser.network.state_dict().items()}
        size = sum(2 * value.numel() for value in half.values())
        if size > FP16_LIMIT:
            return {"note": f"{size / 1e6:.0f} MB in float16: left where they are"}
        path = self.chosen.out / f"weights-{model.name}.safetensors"
        save_tensors(path, half, {"spec": model.facts["spec"], "weights": "ema"})
        return {"bytes": path.stat().st_size}

    def keep(self, name: str, work: Callable[[], xr.Dataset]) -> dict:
        """A result goes to the disk, and into the report, before the next is begun."""
        self.results[name] = result = work()
        cl.save_result(result, self.chosen.out / f"{name}.nc")
        about = json.dumps({key: str(value) for key, value in result.attrs.items()}, indent=1)
        (self.chosen.out / f"{name}.json").write_text(about)
        return numbers(result)

    def page(self) -> dict:
        shown = [result for name, result in self.results.items() if name != "frozen"]  # which no report takes
        return {"page": str(cl.report(shown, self.chosen.out / "pair.html", f"Two seeds: {self.chosen.network}"))}

    def measures(self) -> Iterator[tuple[str, Callable[[], xr.Dataset]]]:
        """What is measured, by name. The cheap ones first; LPIPS meets trajectories that the first comparison has walked."""
        quick, images = self.chosen.quick, self.images
        pair = a, b = [self.models[seed] for seed in SEEDS]
        levels = 4 if quick else 14
        walked = {
            "count": self.chosen.count, "sampler": cl.Sampler(steps=4 if quick else 50), "levels": levels, "known": self.known,
        }  # fmt: skip
        plain = {"metrics": ("mse", "cosine"), "images": images, **walked}
        some = {"count": 4 if quick else 64, "bins": 3 if quick else 10}
        yield "comparison", partial(cl.compare, pair, ceiling=False, references=(), **plain)
        yield "landscape", partial(cl.probe_landscape, a, images, towards=b, points=9 if quick else 17, **some)
        yield "frozen", partial(compare_frozen, pair, images, count=some["count"], levels=levels)
        yield "controls", partial(cl.compare, pair, **plain)
        if self.chosen.lpips:
            metric = f"lpips-squeeze(weights={self.chosen.lpips!r}, rounded=True)"
            yield "lpips", partial(cl.compare, pair, metrics=(metric,), ceiling=False, **walked)
        # Its closed-form references have 3,072 x 3,072 covariances, which the CPU takes apart.
        yield "difficulty", partial(cl.probe_difficulty, a, images, detail=2 if quick else 8, **some)
        few = {"count": 2 if quick else 8, "bins": 2, "eigenvalues": 1, "probes": 2, "products": 6, "by_t": False}
        length = 3 if quick else 10
        yield "curvature", partial(cl.probe_curvature, a, images, operators=("hessian",), steps=length, **few)


def numbers(result: xr.Dataset) -> dict[str, Any]:
    """What a line of the journal says of a result: its main values at the last time, and its warnings."""
    found = {
        key: result[key].isel(t=-1, missing_dims="ignore").values.round(6).tolist() for key in SHOWN if key in result
    }
    return found | {key: result.attrs[key] for key in ("warnings",) if key in result.attrs}


def main() -> None:
    told = {"data": "", "lpips": "", "store": "", "network": "paper", "part": "all", "train": 240.0, "count": 1000}
    chosen = arguments(__doc__, seconds=570, **told)
    chosen.store = chosen.store or str(chosen.out / "runs")
    if chosen.quick:
        chosen.network, chosen.count = "quick", 12
    journal = Journal(chosen, f"pair-{chosen.part}")
    made = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = cl.load_images(chosen.data) if chosen.data else ImageSet("made-up", made)
    pair = Pair(chosen, images)
    try:
        settings = planned(images, chosen)
        plan = {"network": settings.network, "steps": settings.steps, "batch": settings.batch, "images": len(images)}
        journal.write({"step": "plan", **plan})
        for seed in SEEDS:  # where both are trained already this loads them
            journal.attempt(f"train {seed}", 3600, partial(pair.train, seed, settings))
            journal.attempt(f"weights {seed}", 30, partial(pair.bring_home, seed))
        if chosen.part in ("measure", "all") and len(pair.models) == len(SEEDS):
            for name, work in pair.measures():
                journal.attempt(name, 200, partial(pair.keep, name, work))
                if name in ("frozen", "lpips"):  # a page takes seconds; results that it lacks are on the disk
                    journal.attempt(f"report after {name}", 60, pair.page)
            journal.attempt("report", 60, pair.page)
    except KeyboardInterrupt as stop:
        journal.write({"step": "stopped", "note": str(stop)})
    journal.write({"step": "end", "failed": journal.failed})


if __name__ == "__main__":
    main()
