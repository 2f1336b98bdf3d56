"""Train the models that ship with the package, those that the store lacks, and write them as its files, with what float16 changes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from consistency_lab import compare, load, load_images, measure_quality, set_classifier, zoo
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.model_kinds import kind_of
from consistency_lab.presets import zoo_plan
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import LoopSettings

DATA = "fashion-mnist"
SAMPLER = Sampler("dpm++2m", 20)
LICENCE = "MIT, as the package; trained on Fashion-MNIST (Zalando SE, MIT)"
TEXT = f"""# The zoo

Small models that ship with the package, as `zoo:NAME`: trained on the 60,000 training images of Fashion-MNIST at 28x28, two seeds each. A
file holds the averaged weights in float16, and the settings, the command and the seconds of their training. Licence: {LICENCE}.

`python analyses/make_zoo.py` trains the models, writes the files and this page."""


def command(settings: LoopSettings) -> str:
    """The command line that trains it."""
    standard = type(settings)().texts
    changed = {key: value for key, value in settings.texts.items() if value != standard.get(key) and key != "seed"}
    options = [part for key, value in changed.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    train = {"model": "train", "gan": "train-gan", "vae": "train-vae"}[kind_of(settings).name]
    return shlex.join(["consistency-lab", train, "--data", DATA, "--seeds", str(settings.seed), *options])


def scores(models: Sequence[Any], count: int) -> dict[tuple[str, str], float]:
    """Of each pair, by the mean squared error of its images."""
    found = compare(models, SharedNoise(0), count=count, metrics=["mse"], sampler=SAMPLER, ceiling=False)
    final = found["score"].sel(metric="mse").isel(t=-1).values
    names = [model.name for model in models]
    ends = zip(found["first"].values, found["second"].values, strict=True)
    return {(names[a], names[b]): float(score) for (a, b), score in zip(ends, final, strict=True)}


def page(rows: Iterable[Sequence[object]], between: Mapping[tuple[str, str], float], quality: str) -> str:
    """The text beside the files."""
    lines = [
        TEXT,
        "",
        quality,
        "",
        "| model | parameters | file, MB | Frechet distance | trained by |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    lines += [
        "",
        "Scores (mean squared error, the samples of the table, float16 files):",
        "",
        "| pair | score |",
        "|---|---|",
    ]
    lines += [f"| {a}, {b} | {score:.3f} |" for (a, b), score in between.items()]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--data-dir", help="folder with the files of published sets")
    parser.add_argument("--count", type=int, default=500, help="samples")
    given = parser.parse_args(arguments)
    images = load_images(DATA, data_dir=given.data_dir)
    held_out = load_images(f"{DATA}(split='test')", data_dir=given.data_dir)
    store = Store(given.store)
    zoo.FOLDER.mkdir(exist_ok=True)
    trained: dict[str, Any] = {}
    sizes = {}
    for name, settings in zoo_plan().items():
        model = kind_of(settings).train(images, settings=settings, store=store, name=name)
        about = {"command": command(settings), "licence": LICENCE}
        sizes[name] = zoo.pack(model.folder, zoo.FOLDER / f"{name}.safetensors", about)
        trained[name] = replace(model, name=name)
        print(f"{name}: {sizes[name] / 1e6:.2f} MB", flush=True)
    shipped = {name: load(f"zoo:{name}") for name in trained}

    between: dict[tuple[str, str], float] = {}
    for kind in dict.fromkeys(model.facts["kind"] for model in shipped.values()):
        before, after = (
            scores([model for model in every.values() if model.facts["kind"] == kind], given.count)
            for every in (trained, shipped)
        )
        print(
            f"{kind}: float16 changes scores by up to {max(abs(after[pair] - before[pair]) for pair in before):.5f}",
            flush=True,
        )
        between |= after

    classifier = set_classifier(images, store)
    found = measure_quality(
        list(shipped.values()), held_out, classifier, training=images, count=given.count, sampler=SAMPLER
    )
    frechet = found.isel(measure=0)
    values = dict(zip(found["row"].values.tolist(), frechet["value"].values.tolist(), strict=True))
    intervals = {
        row: f"{values[row]:.1f} [{low:.1f}, {high:.1f}]"
        for row, low, high in zip(
            found["row"].values.tolist(), frechet["value_low"].values, frechet["value_high"].values, strict=True
        )
    }
    others = ", ".join(f"{row} {text}" for row, text in intervals.items() if row not in shipped)
    quality = (
        f"Frechet distance: features of a small classifier of the set, {given.count} samples (DPM++ 2M, {SAMPLER.steps} steps) against "
        f"{len(held_out):,} held-out images, with a 95 % interval. Beside it: {others}."
    )
    plan = zoo_plan()
    rows = []
    for name, model in shipped.items():
        size, parameters = f"{sizes[name] / 1e6:.2f}", f"{model.facts['parameters']:,}"
        rows.append((f"`zoo:{name}`", parameters, size, intervals[name], f"`{command(plan[name])}`"))
    (zoo.FOLDER / "README.md").write_text(page(rows, between, quality), encoding="utf-8")


if __name__ == "__main__":
    main()
