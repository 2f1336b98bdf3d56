"""Small real results of the kinds that plots, reports, notebooks and analyses read; computed once per process, handed out as copies.

No variable is made up, so none can differ from what the package returns; where a test wants other numbers, `like` puts them into a real
result. The models of a comparison are Gaussian denoisers, each fitted to
its own digits: images that look like digits without training. They carry the facts of a model that was trained.
"""

import dataclasses
import json
import tempfile
from functools import cache, wraps
from pathlib import Path

import numpy as np
import torch

import consistency_lab as cl
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.race import race as run_race
from consistency_lab.paper.race.running import Watch
from consistency_lab.paper.rows import Rows
from consistency_lab.store.shapes import shape_of
from consistency_lab.training.train import training_curves

METRICS = ("mse", "cosine", "psnr")
NAMES = ["unet seed 0", "unet seed 1", "dit seed 0", "mlp seed 0", *(f"unet seed {seed}" for seed in range(2, 6))]
TINY = {"network": "mlp(width=8, depth=1)", "batch": 8, "device": "cpu", "progress": False}


def once(function):
    """Computed once for each set of arguments; every caller gets a copy of its own."""
    made = cache(function)
    return wraps(function)(lambda *args, **options: made(*args, **options).copy(deep=True))


@cache
def digits(channels=1):
    few = cl.load_images("digits").take(range(300), "digits")
    tint = torch.linspace(1, 0.5, channels)[:, None, None]
    return few if channels == 1 else cl.ImageSet("digits", few.all() * tint)


@cache
def trained(seed, steps=2):
    folder = tempfile.mkdtemp(prefix="consistency-lab-results-")
    return cl.train(digits(), seed=seed, steps=steps, store=folder, **TINY)


def model(name, channels=1):
    """Fitted to 60 of the digits, those that the name's place draws."""
    own = digits(channels).split(60, 1, seed=NAMES.index(name))[0]
    facts, seed = trained(0).facts, int(name.split()[-1])
    facts = {**facts, "network": name.split()[0], "seeds": dict.fromkeys(facts["seeds"], seed)}
    return cl.DiffusionModel(name, GaussianDenoiser.fit(own.all(), cl.SCHEDULES.build("linear")), facts)


@once
def comparison(models=4, samples=48, shown=8, times=11, channels=1, nearest=True, references=True):
    found = cl.compare(
        [model(name, channels) for name in NAMES[:models]],
        cl.SharedNoise(2**40),
        count=samples,
        metrics=METRICS,
        sampler=cl.Sampler("ddim", 20),
        images=digits(channels) if nearest or references else None,
        levels=times,
        shown=shown,
        references=("gaussian", "optimal", "mean") if references else (),
    )
    return found if nearest or not references else found.drop_vars(["nearest_distance", "nearest_images"])


@once
def gate(samples=64, metrics=("mse", "cosine")):
    a, b = (model(name) for name in NAMES[:2])
    return cl.gate(a, b, a, metrics=metrics, count=samples, sampler=cl.Sampler(steps=4))


@once
def difficulty(samples=32):
    return cl.probe_difficulty(trained(0), digits(), count=samples, bins=16, detail=4)


@once
def landscape(between=True):
    towards = trained(1) if between else None
    return cl.probe_landscape(trained(0), digits(), towards=towards, points=31, count=16, bins=5)


@once
def training(models=4):
    """The last of four or more models was trained for fewer steps than the others."""
    steps = [75 if i == 3 else 100 for i in range(models)]
    return training_curves([dataclasses.replace(trained(i % 2, n), name=NAMES[i]) for i, n in enumerate(steps)])


@once
def recipe():
    return cl.Recipe.from_findings(difficulty(), [landscape(between=False)]).to_dataset()


def everything(models=4, **options):
    return [
        comparison(models, **options),
        difficulty(),
        landscape(),
        landscape(between=False),
        training(min(models, 4)),
        recipe(),
    ]


@once
def structure():
    return cl.probe_structure(
        [model(name) for name in NAMES[:2]], digits(), count=6, levels=3, sampler=cl.Sampler(steps=4)
    )


@once
def curvature():
    return cl.probe_curvature(trained(0), digits(), count=4, bins=2, eigenvalues=1, probes=2, steps=4, products=6)


@once
def race():
    """Two contestants, one seed, two targets."""
    train_on, held_out = digits().split(200, 100, seed=0)
    classifier = train_classifier(digits().all(), digits().labels, "digits", steps=2)
    watch = Watch(train_on, held_out, classifier, batch=16, every=10, count=10, sampler=cl.Sampler(steps=2))
    base = cl.TrainingSettings(network=TINY["network"], batch=8, steps=30, lr_warmup=5, snapshots=0)
    contestants = [Contestant("uniform", base, "control"), Contestant("decay", base.replace(lr_final=0.1), "annealed")]
    rows = Rows(Path(tempfile.mkdtemp(prefix="consistency-lab-race-")) / "rows.jsonl")
    return run_race(contestants, watch, rows, seeds=[0], targets=(0.5, 0.9), followed=1)


def resized(ds, **sizes):
    """The result with that many entries along each dimension, the first ones repeated in turn; it says that it was made so."""
    ds = ds.isel({dim: np.sort(np.arange(n) % ds.sizes[dim]) for dim, n in sizes.items()})
    ds = ds.assign_coords({dim: np.arange(n) for dim, n in sizes.items() if dim in ds.coords})
    return ds.assign_attrs(shape=shape_of(ds, json.loads(ds.attrs["shape"]).get("choices")))


def like(real, values, coords, **attrs):
    """A real result with other numbers, for tests that know them in closed form.

    Args:
        real: gives variables, dimensions, coordinates and attributes; nothing can be named that it does not have.
        values: of variables, each along its own dimensions or to be repeated along them.
        coords: the entries along dimensions, and of coordinates along them.
        attrs: to be put in place of its own.
    """
    unknown = {*values, *coords} - set(real.variables) | set(attrs) - set(real.attrs)
    assert not unknown, f"a real {real.attrs['kind']} result has no {sorted(unknown)}"
    sizes = {dim: len(entries) for dim, entries in coords.items() if dim in real.dims}
    for name, value in values.items():
        value = np.asarray(value)
        for dim, n in zip(reversed(real[name].dims), reversed(value.shape), strict=False):
            sizes[dim] = max(n, sizes.get(dim, 1))
    ds = resized(real, **sizes)
    for name, value in {**coords, **values}.items():
        shape = tuple(ds.sizes[dim] for dim in real[name].dims)
        ds[name] = (real[name].dims, np.broadcast_to(value, shape).copy())
    return ds.assign_attrs(attrs)
