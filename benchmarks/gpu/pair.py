"""Two seeds of one U-Net on a set of images, for so many seconds each, and what the package says of the pair.

python pair.py --data cifar.npz --lpips squeeze.pth --store runs --out out --part train    (goes on where it was stopped)
python pair.py --data cifar.npz --lpips squeeze.pth --store runs --out out --part measure
python pair.py --device cpu --quick                                                        (a rehearsal)

--network small is a U-Net of 6.5 million weights; its averaged weights come home as float16, 12.9 MB a model.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import torch
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


def main() -> None:
    chosen = arguments(
        __doc__, seconds=570, data="", lpips="", store="runs", network="paper", part="all", train=240.0, count=1000
    )
    journal, device, out = Journal(chosen, f"pair-{chosen.part}"), chosen.device, chosen.out
    if chosen.quick:
        chosen.network, chosen.count = "quick", 12
    made = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = cl.load_images(chosen.data) if chosen.data else ImageSet("made-up", made)
    models, results, known = {}, {}, WalkCache()

    def train(seed: int, settings: cl.TrainingSettings) -> dict:
        name = f"{chosen.network}-s{seed}"
        models[seed] = cl.train(
            images, name=name, settings=settings.replace(seed=seed), store=chosen.store, device=device, progress=False
        )
        records = Run.open(models[seed].folder).records()
        (out / f"training-{name}.json").write_text(
            json.dumps({"model": described(models[seed]), "log": records}, default=str)
        )
        return {"steps": settings.steps, "training_seconds": records[-1]["seconds"], "last_loss": records[-1]["loss"]}

    def bring_home(seed: int) -> dict:
        """The averaged weights in float16, if they are small enough, with the spec that builds their network."""
        model = models[seed]
        half = {key: value.half() for key, value in model.denoiser.network.state_dict().items()}
        size = sum(2 * value.numel() for value in half.values())
        if size > FP16_LIMIT:
            return {"note": f"{size / 1e6:.0f} MB in float16: left where they are"}
        path = out / f"weights-{model.name}.safetensors"
        save_tensors(path, half, {"spec": model.facts["spec"], "weights": "ema"})
        return {"bytes": path.stat().st_size}

    def keep(name: str, work) -> dict:
        """A result goes to the disk, and into the report, before the next is begun."""
        results[name] = result = work()
        cl.save_result(result, out / f"{name}.nc")
        (out / f"{name}.json").write_text(
            json.dumps({key: str(value) for key, value in result.attrs.items()}, indent=1)
        )
        found = {}
        for key in ("score", "score_low", "score_high", "ceiling_score"):
            if key in result:
                found[key] = result[key].isel(t=-1, missing_dims="ignore").values.round(4).tolist()
        for key in ("barrier", "relative_barrier", "curvature", "warnings"):
            if key in result.attrs:
                found[key] = result.attrs[key]
        return found

    def page() -> dict:
        shown = [result for name, result in results.items() if name != "frozen"]  # which no report takes
        return {"page": str(cl.report(shown, out / "pair.html", f"Two seeds: {chosen.network}"))}

    def measures() -> list:
        a, b = (models[seed] for seed in SEEDS)
        sampler = cl.Sampler(steps=4 if chosen.quick else 50)
        levels = {"count": chosen.count, "sampler": sampler, "levels": 4 if chosen.quick else 14, "known": known}
        some = {"count": 4 if chosen.quick else 64, "bins": 3 if chosen.quick else 10}
        # The cheap ones first; LPIPS, computed on the CPU, meets trajectories that the first comparison has walked.
        steps = [
            (
                "comparison",
                lambda: cl.compare(
                    [a, b], metrics=("mse", "cosine"), ceiling=False, references=(), images=images, **levels
                ),
            ),
            ("landscape", lambda: cl.probe_landscape(a, images, towards=b, points=9 if chosen.quick else 17, **some)),
            ("frozen", lambda: compare_frozen([a, b], images, count=some["count"], levels=4 if chosen.quick else 14)),
            ("controls", lambda: cl.compare([a, b], metrics=("mse", "cosine"), images=images, **levels)),
        ]
        if chosen.lpips:
            metric = f"lpips-squeeze(weights={chosen.lpips!r}, rounded=True)"
            steps.append(("lpips", lambda: cl.compare([a, b], metrics=(metric,), ceiling=False, **levels)))
        # Its closed-form references have 3,072 x 3,072 covariances, which the CPU takes apart.
        steps.append(("difficulty", lambda: cl.probe_difficulty(a, images, detail=2 if chosen.quick else 8, **some)))
        small = {
            "count": 2 if chosen.quick else 8,
            "bins": 2,
            "eigenvalues": 1,
            "probes": 2,
            "products": 6,
            "by_t": False,
        }
        length = 3 if chosen.quick else 10
        steps.append(
            ("curvature", lambda: cl.probe_curvature(a, images, operators=("hessian",), steps=length, **small))
        )
        return steps

    try:
        settings = planned(images, chosen)
        journal.write(
            {
                "step": "plan",
                "network": settings.network,
                "steps": settings.steps,
                "batch": settings.batch,
                "images": len(images),
            }
        )
        for seed in SEEDS:  # where both are trained already this loads them
            journal.attempt(f"train {seed}", 3600, partial(train, seed, settings))
            journal.attempt(f"weights {seed}", 30, partial(bring_home, seed))
        if chosen.part in ("measure", "all") and len(models) == len(SEEDS):
            for name, work in measures():
                journal.attempt(name, 200, partial(keep, name, work))
                if name in ("frozen", "lpips"):  # a page takes seconds; results that it lacks are on the disk
                    journal.attempt(f"report after {name}", 60, page)
            journal.attempt("report", 60, page)
    except KeyboardInterrupt as stop:
        journal.write({"step": "stopped", "note": str(stop)})
    journal.write({"step": "end", "failed": journal.failed})


if __name__ == "__main__":
    main()
