"""Is it right on this device? Every step prints {"step", "ok", ...}; the exit status is the number of steps that failed.

python smoke.py --out out            (at most a minute on a GPU)
python smoke.py --device cpu --quick (a rehearsal)
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import Journal, arguments, flags

import consistency_lab as cl
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.paper.race.parallel_runs import run_all
from consistency_lab.paper.race.running import RaceRun, Watch
from consistency_lab.paper.rows import Rows
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.similarity.frozen import compare_frozen
from consistency_lab.similarity.representations import capture
from consistency_lab.studies.contrast_subject import contrast_subject
from consistency_lab.studies.executors import executor_of
from consistency_lab.studies.fleet import train_fleet
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.train import DenoisingBatches, build_denoiser, training_spec

NOISE, FEW = cl.SharedNoise(0), cl.Sampler(steps=10)
TRAINERS = {cl.TrainingSettings: cl.train, cl.GANSettings: cl.train_gan, cl.VAESettings: cl.train_vae}


def module_of(model):
    return model.denoiser if hasattr(model, "denoiser") else model.module


def apart(a, b) -> float:
    """The largest difference of any weight; 0 means equal to the bit."""
    pairs = zip(module_of(a).state_dict().values(), module_of(b).state_dict().values(), strict=True)
    return max(float((x.double().cpu() - y.double().cpu()).abs().max()) for x, y in pairs)


def on(model, device):
    """A copy of the model on another device."""
    field = "denoiser" if hasattr(model, "denoiser") else "module"
    return dataclasses.replace(model, **{field: copy.deepcopy(module_of(model)).to(device)})


def stopped_and_resumed(train, half: int):
    """Ctrl-C in the middle, then the same command again: the way a user stops."""
    ordinary = TrainingLoop._advance

    def pressed(loop):
        if loop.step == half:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(loop)

    TrainingLoop._advance = pressed
    try:
        train()
        raise AssertionError("the run was not stopped")
    except KeyboardInterrupt:
        TrainingLoop._advance = ordinary
    finally:
        TrainingLoop._advance = ordinary
    return train()


def learns(images, settings, device, store: Path, references: dict) -> dict:
    """One settings trained three times (twice whole, once stopped) on the device, and once on the CPU, there always in float32."""
    train = partial(TRAINERS[type(settings)], images, settings=settings, progress=False)
    first, again, plain = train(device=device), train(device=device), settings.replace(precision="float32")
    if plain not in references:
        references[plain] = train(settings=plain, device="cpu")
    reference = references[plain]
    found = {"repeat_apart": apart(first, again), "cpu_apart": apart(first, reference)}
    if isinstance(settings, cl.TrainingSettings):
        found["resume_apart"] = apart(
            first, stopped_and_resumed(partial(train, device=device, store=store), settings.steps // 2)
        )
        subjects = [cl.diffusion_subject(model, images, count=32) for model in (first, reference)]
        found["loss"], found["loss_of_cpu_run"] = (float(s.losses().mean()) for s in subjects)
        found["same_weights_loss_apart"] = float(
            (subjects[0].losses() - cl.diffusion_subject(on(first, "cpu"), images, count=32).losses()).abs().max()
        )
    ours, cpu = first.generate(NOISE, range(8)), on(first, "cpu").generate(NOISE, range(8))
    found["images_repeat_apart"] = float((ours - first.generate(NOISE, range(8))).abs().max())
    found["images_cpu_apart"] = float((ours - cpu).abs().max() / cpu.abs().max())
    near = abs(found.get("loss", 1) / found.get("loss_of_cpu_run", 1) - 1) < 0.15  # other noise, so near and not equal
    exact = all(found.get(key, 0) == 0 for key in ("repeat_apart", "resume_apart", "images_repeat_apart"))
    return {"ok": near and exact and found["images_cpu_apart"] < 1e-3, **found}


def waits(images, device) -> dict:
    """Where three training steps and three sampling steps make the host wait for the GPU, by line of the package."""
    if device.type != "cuda":
        return {"note": "needs a GPU"}
    seen: Counter[str] = Counter()

    def note(message, *_: object) -> None:
        own = [f for f in traceback.extract_stack() if f"{os.sep}consistency_lab{os.sep}" in f.filename]
        seen[f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else str(message)[:80]] += 1

    settings = cl.TrainingSettings(steps=1000)
    denoiser = build_denoiser(training_spec(images, settings, device)).to(device)
    steps = iter(
        TrainingLoop(denoiser, cl.denoising_loss, DenoisingBatches(images, settings, device), settings, device)
    )
    model, found = cl.DiffusionModel("m", denoiser.eval()), {}
    for name, walk in (("training", steps), ("sampling", model.path(NOISE, range(8), cl.Sampler(steps=8)))):
        next(walk)  # what is made once is not counted
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for _ in range(3):
                    next(walk)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found[name] = dict(seen)
        seen.clear()
        walk.close()
    return found


def probed(work, results: list) -> dict:
    """Most of the result must have values, what has none is named, and the process's switches must be what they were."""
    before, result = flags(), work()
    if hasattr(result, "attrs"):
        results.extend([result] if result.attrs["kind"] != "frozen comparison" else [])  # which no report takes
        values = [v for v in result.data_vars.values() if v.dtype.kind == "f"]
        void = sorted(str(v.name) for v in values if not bool(v.notnull().any()))  # what has no meaning here
        finite = 2 * len(void) < len(values)
    else:
        void, finite = [], all(bool(v.isfinite().all()) for v in result.values())
    return {"ok": finite and flags() == before, "void": void, "flags_kept": flags() == before}


def left(model) -> dict:
    """A walk that is left half way puts the switches back too."""
    before, walk = flags(), model.path(NOISE, range(4), FEW)
    next(walk)
    walk.close()
    return {"ok": flags() == before}


def probes(images, a, b, small, other, gan, vae) -> dict[str, Callable[[], object]]:
    """What is measured, by name: of two U-Nets, two small networks, a GAN and a VAE."""
    few = {"count": 8, "bins": 3}
    tiny = {"eigenvalues": 1, "probes": 2, "steps": 4, "products": 6}
    one = {"count": 16, "sampler": FEW, "levels": 4, "images": images}
    return {
        "compare": lambda: cl.compare([a, b], metrics=("mse", "cosine", "ssim(sigma=0.8)"), **one),
        "compare ancestral": lambda: cl.compare([a, small], **one | {"sampler": cl.Sampler("ancestral", 10)}),
        "compare frozen": lambda: compare_frozen([a, b], images, count=16, levels=3),
        "compare gan vae": lambda: cl.compare([gan, dataclasses.replace(gan, name="again")], count=16, images=images),
        "capture": lambda: capture(a, ["network.middle.0.res.conv_1"], 0.5, images, count=8),
        "difficulty": lambda: cl.probe_difficulty(a, images, detail=4, **few),
        "landscape": lambda: cl.probe_landscape(a, images, points=5, **few),
        "landscape between": lambda: cl.probe_landscape(a, images, towards=b, points=7, **few),
        "plane": lambda: cl.probe_plane(a, images, points=5, **few),
        "curvature": lambda: cl.probe_curvature(small, images, count=4, bins=2, **tiny),
        "curvature unet": lambda: cl.probe_curvature(
            a, images, count=2, bins=2, by_t=False, operators=("hessian",), **tiny
        ),
        "structure": lambda: cl.probe_structure([a, b], images, count=6, sampler=FEW, levels=4),
        "connectivity": lambda: cl.probe_connectivity(
            small, other, images, images, points=3, steps=5, samples=4, sampler=FEW, **few
        ),
        "gan landscape": lambda: line_landscape(contrast_subject(gan, images, count=8), points=5),
        "vae landscape": lambda: line_landscape(contrast_subject(vae, images, count=8), points=5),
    }


def fleet(images, store: Path, device, steps: int) -> dict:
    """Two processes on one device: what they train is what one process trains."""
    jobs = {
        f"mlp-{seed}": cl.TrainingSettings(network="mlp(width=32)", steps=steps, seed=seed, snapshots=0)
        for seed in (7, 8)
    }
    made = train_fleet(images, jobs, cl.Store(store / "fleet"), device=device, workers=2)
    threads = torch.get_num_threads()
    worst = [apart(made[name], cl.train(images, settings=s, device=device, progress=False)) for name, s in jobs.items()]
    return {"ok": max(worst) == 0 or device.type == "cpu", "apart": worst, "threads": threads}


def laps(images, store: Path, device) -> dict:
    """The race's workers, to which the frozen batch on the device is sent."""
    train, held = images.split(1500, 297)
    judge = train_classifier(train.all(), train.labels, "digits", steps=12, batch=32)
    watch = Watch(train, held, judge, batch=64, every=5, count=16, sampler=cl.Sampler("dpm++2m", 4), device=device)
    told = [RaceRun("x", cl.TrainingSettings(network="mlp(width=32)", steps=10, seed=seed)) for seed in (0, 1)]
    rows = Rows(store / "rows.jsonl")
    run_all(watch, told, rows, executor_of("local", 2))
    return {"ok": len(rows) > 0, "rows": len(rows)}


def main() -> int:
    chosen = arguments(__doc__, seconds=120)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with Ctrl-C ignored
    device, steps = chosen.device, 12 if chosen.quick else 100
    journal, images = Journal(chosen, "smoke"), cl.load_images("digits")
    with tempfile.TemporaryDirectory() as folder:
        store, references = Path(folder), {}
        for precision in ("float32", "bfloat16"):
            common = {"steps": steps, "precision": precision, "snapshots": 2}
            for network in ("unet", "dit", "mlp"):
                settings = cl.TrainingSettings(network=network, **common)
                journal.attempt(
                    f"train {network} {precision}", 30, partial(learns, images, settings, device, store, references)
                )
            journal.attempt(
                f"train gan {precision}",
                20,
                partial(learns, images, cl.GANSettings(**common), device, store, references),
            )
            journal.attempt(
                f"train vae {precision}",
                20,
                partial(learns, images, cl.VAESettings(**common), device, store, references),
            )

        short = partial(cl.train, images, steps=steps, device=device, progress=False, snapshots=2, store=store)
        a, b = short(network="unet", seed=0), short(network="unet", seed=1)
        small, other = short(network="mlp(width=32)", seed=0), short(network="mlp(width=32)", seed=1)
        gan = cl.train_gan(images, steps=5, device=device, progress=False)
        vae = cl.train_vae(images, steps=5, device=device, progress=False)
        results = []

        for name, work in probes(images, a, b, small, other, gan, vae).items():
            journal.attempt(name, 20, partial(probed, work, results))
        journal.attempt("switches after half a walk", 20, partial(left, a))
        journal.attempt("report", 20, lambda: {"page": str(cl.report(results, chosen.out / "smoke.html"))})
        journal.attempt("waits", 20, partial(waits, images, device))

        journal.attempt("fleet of 2 workers", 60, partial(fleet, images, store, device, steps))
        journal.attempt("race of 2 workers", 60, partial(laps, images, store, device))
    journal.write({"step": "end", "failed": journal.failed, "flags": flags()})
    return min(journal.failed, 100)


if __name__ == "__main__":
    sys.exit(main())
