"""Results with the shapes that plots and reports read, filled with plausible values computed from small made-up images.

Nothing here is a measurement: the images are the embedded digits, bent a little per model.
"""

import itertools
import json

import numpy as np
import xarray as xr
from sklearn.datasets import load_digits

from consistency_lab.metrics.distances import METRICS as KINDS
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.similarity.statistics import pair_score

METRICS = ("mse", "cosine", "psnr")
VERSIONS = {"consistency_lab": "0.1.0", "python": "3.11.2", "torch": "2.6.0", "numpy": "2.1.0"}


def _log_snr(t):
    integral = 0.1 * t + 0.5 * (20 - 0.1) * t**2
    with np.errstate(divide="ignore"):
        return -np.log(np.expm1(integral))


def _metric(name, a, b):
    """(..., D), (..., D) in [-1, 1] -> (...)"""
    mse = ((a - b) ** 2).mean(-1)
    if name == "mse":
        return mse
    if name == "psnr":
        return 10 * np.log10(4 / np.maximum(mse, 1e-12))
    product = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return 1 - product


def _to_pixels(x, channels, size):
    image = np.clip((x.reshape(*x.shape[:-1], size, size) + 1) * 127.5, 0, 255).round().astype(np.int16)
    return np.repeat(image[..., None, :, :], channels, axis=-3)


def _trajectories(models, samples, t, size, rng):
    """x0 estimates (model, sample, t, D): a target per noise, reached from the data mean, and each model's error."""
    digits = load_digits().images / 8 - 1
    digits = np.kron(digits, np.ones((size // 8, size // 8))).reshape(len(digits), -1)
    target = digits[rng.integers(len(digits), size=samples)]
    mean = digits.mean(axis=0)
    known = 1 / (1 + np.exp(-0.55 * np.nan_to_num(_log_snr(t), posinf=30.0)))
    bent = rng.standard_normal((models, samples, 1, size * size)) * np.linspace(0.1, 0.32, models)[:, None, None, None]
    common = mean + known[:, None] * (target[:, None] - mean)
    return np.clip(common + bent * np.sqrt(known)[:, None], -1, 1), target, mean, digits


def comparison(models=4, samples=48, shown=8, times=11, size=8, channels=1, nearest=True, references=True, seed=0):
    rng = np.random.default_rng(seed)
    t = np.concatenate([np.linspace(1, 0.05, times - 1), [0.0]])
    x, target, mean, digits = _trajectories(models, samples, t, size, rng)
    known = ["unet seed 0", "unet seed 1", "dit seed 0", "mlp seed 0"]
    names = known[:models] + [f"unet seed {i}" for i in range(2, models - 2)]
    pairs = list(itertools.combinations(range(models), 2))
    shape = (len(pairs), len(t), samples, len(METRICS))
    distance, null = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for p, (i, j) in enumerate(pairs):
        for m, metric in enumerate(METRICS):
            distance[p, ..., m] = _metric(metric, x[i], x[j]).T
            every = _metric(metric, x[i][:, None], x[j][None])
            off = (every.sum(1) - every[np.arange(samples), np.arange(samples)]) / (samples - 1)
            null[p, ..., m] = off.T
    score = 1 - distance.mean(2, dtype=np.float64) / null.mean(2, dtype=np.float64)
    score[..., METRICS.index("psnr")] = np.nan
    family, width = score.mean(0), 0.05 + 0 * score
    coords = {
        "model": names,
        "pair": [f"{names[i]} | {names[j]}" for i, j in pairs],
        "first": ("pair", np.array([i for i, _ in pairs], np.int32)),
        "second": ("pair", np.array([j for _, j in pairs], np.int32)),
        "t": t,
        "log_snr": ("t", _log_snr(t)),
        **metric_coordinates([KINDS.build(metric) for metric in METRICS]),
    }
    variables = {
        "distance": (("pair", "t", "sample", "metric"), distance),
        "null": (("pair", "t", "sample", "metric"), null),
        "score": (("pair", "t", "metric"), score),
        "score_low": (("pair", "t", "metric"), score - width),
        "score_high": (("pair", "t", "metric"), np.minimum(score + width, 1)),
        "family_score": (("t", "metric"), family),
        "family_score_low": (("t", "metric"), family - 0.08),
        "family_score_high": (("t", "metric"), np.minimum(family + 0.08, 1)),
        "images": (("model", "shown", "t", "channel", "row", "column"), _to_pixels(x[:, :shown], channels, size)),
    }
    ends = np.argsort(distance[:, -1, :, 0].mean(0))
    coords["sample"] = np.arange(samples, dtype=np.int32)
    coords["extreme"] = np.sort(np.concatenate([ends[:4], ends[-4:]])).astype(np.int32)
    variables["extreme_images"] = (
        ("model", "extreme", "channel", "row", "column"),
        _to_pixels(x[:, coords["extreme"], -1], channels, size),
    )
    again = np.clip(x[:, :, -1] + 0.02 * rng.standard_normal(x[:, :, -1].shape), -1, 1)
    ceiling = np.stack([_metric(metric, again, x[:, :, -1]) for metric in METRICS], axis=-1)
    variables["ceiling"] = (("model", "sample", "metric"), ceiling.astype(np.float32))
    other = np.stack([_metric(metric, np.roll(again, 1, axis=1), x[:, :, -1]) for metric in METRICS], axis=-1)
    variables["ceiling_null"] = (("model", "sample", "metric"), other.astype(np.float32))
    _add_score(variables, "ceiling_score", ("metric",), ceiling, other, axis=0)
    if references:
        coords["reference"] = ["gaussian", "optimal", "mean"]
        _add_references(variables, x, target, mean, shown, channels, size)
    if nearest:
        every = ((x[:, :, -1][:, :, None] - digits[None, None, :400]) ** 2).mean(-1)
        variables["nearest_distance"] = (("model", "sample"), every.min(-1).astype(np.float32))
        closest = digits[every.argmin(-1)[:, :shown]]
        variables["nearest_images"] = (
            ("model", "shown", "channel", "row", "column"),
            _to_pixels(closest, channels, size),
        )
    interval = (
        "this pair, not this family: bootstrap over noise"
        if models == 2
        else "95 % delete-one-model jackknife, t(K − 1)"
    )
    attrs = {
        "kind": "comparison",
        "interval": interval,
        "provenance": json.dumps(_comparison_facts(names, samples, nearest)),
    }
    return xr.Dataset(variables, coords, attrs)


def _add_references(variables, x, target, mean, shown, channels, size):
    blurred = np.broadcast_to(mean + 0.5 * (x[0] - mean), x[0].shape)
    flat = np.broadcast_to(mean, x[0].shape)
    reference = np.stack([blurred, 0.5 * x[0] + 0.5 * target[:, None], flat])
    values = np.stack([_metric(metric, x[:, None], reference[None]) for metric in METRICS], axis=-1).swapaxes(2, 3)
    dims = ("model", "reference", "t", "sample", "metric")
    variables["reference_distance"] = (dims, values.astype(np.float32))
    null = np.stack([_metric(metric, x[:, None], np.roll(reference, 1, axis=1)[None]) for metric in METRICS], axis=-1)
    null = null.swapaxes(2, 3)
    variables["reference_null"] = (dims, null.astype(np.float32))
    score = 1 - values.mean(3) / null.mean(3)
    score[..., METRICS.index("psnr")] = np.nan
    for end, shift in (("", 0.0), ("_low", -0.02), ("_high", 0.02)):
        variables[f"reference_score{end}"] = (("model", "reference", "t", "metric"), score + shift)
    _add_score(variables, "reference_mean_score", ("reference", "t", "metric"), values, null, axis=2)
    images = _to_pixels(reference[:, :shown], channels, size)
    variables["reference_images"] = (("reference", "shown", "t", "channel", "row", "column"), images)


def _add_score(variables, name, dims, distance, null, axis):
    """Averaged over models, then with the interval over samples."""
    for end, part in zip(("", "_low", "_high"), pair_score(distance.mean(0), null.mean(0), axis=axis), strict=True):
        part[..., METRICS.index("psnr")] = np.nan
        variables[f"{name}{end}"] = (dims, part)


def _comparison_facts(names, samples, nearest):
    networks = [name.split(" seed ") for name in names]
    models = [
        {
            "name": name,
            "network": f"{network}(width=32)",
            "parameters": 150_000 + 10_000 * i,
            "seeds": {"init": int(seed), "noise": int(seed), "order": int(seed)},
            "steps": 1500,
            "weights": "ema",
        }
        for i, (name, (network, seed)) in enumerate(zip(names, networks, strict=True))
    ]
    return {
        "models": models,
        "sampler": {"method": "ddim", "steps": 50, "clip": False},
        "nfe": 50,
        "ceiling_steps": 100,
        "samples": samples,
        "noise_seed": 2**40,
        "data": {"name": "digits", "fingerprint": "0f" * 32},
        "versions": VERSIONS,
        "device": "cpu",
        "threads": 1,
        "training_images": 1797 if nearest else None,
    }


def difficulty(samples=32, seed=0):
    rng = np.random.default_rng(seed)
    t = np.linspace(0.02, 1, 16)
    log_snr = _log_snr(t)
    eps = 0.9 / (1 + np.exp(-0.6 * (log_snr - 1))) + 0.01
    scale = {"eps": np.ones_like(t), "x0": np.exp(-log_snr), "v": 1 + np.exp(-log_snr)}
    noise = np.exp(0.3 * rng.standard_normal((len(t), samples)))
    error = np.stack([(eps * scale[unit])[:, None] * noise for unit in ("eps", "x0", "v")])
    reference = np.stack([error * 1.5, error * 0.6])
    excess = (error[None] - reference).mean(-1)
    dims = ("units", "t")
    variables = {
        "error": ((*dims, "sample"), error),
        "reference_error": (("reference", *dims, "sample"), reference),
        "error_mean": (dims, error.mean(-1)),
        "error_mean_low": (dims, error.mean(-1) * 0.9),
        "error_mean_high": (dims, error.mean(-1) * 1.1),
        "excess": (("reference", *dims), excess),
        "excess_low": (("reference", *dims), excess - 0.05 * np.abs(excess)),
        "excess_high": (("reference", *dims), excess + 0.05 * np.abs(excess)),
    }
    coords = {"units": ["eps", "x0", "v"], "t": t, "log_snr": ("t", log_snr), "reference": ["gaussian", "optimal"]}
    facts = {
        "samples": samples,
        "data": {"name": "digits", "fingerprint": "0f" * 32},
        "device": "cpu",
        "versions": VERSIONS,
    }
    return xr.Dataset(
        variables, coords, {"kind": "difficulty", "model": "unet seed 0", "provenance": json.dumps(facts)}
    )


def landscape(between=True):
    position = np.linspace(-0.5, 1.5, 31) if between else np.linspace(-1, 1, 31)
    t = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    hill = 0.08 + (
        0.5 * np.sin(np.pi * np.clip(position, 0, 1))
        + 2 * (np.clip(-position, 0, 1) + np.clip(position - 1, 0, 1)) ** 2
        if between
        else 0.4 * position**2
    )
    by_t = hill[:, None] * (1.6 - 1.4 * t)
    loss = by_t.mean(1)
    variables = {
        "loss": ("position", loss),
        "loss_by_t": (("position", "t"), by_t),
        "loss_low": ("position", loss * 0.93),
        "loss_high": ("position", loss * 1.07),
        "curvature": 0.8,
        "roughness": 0.02,
        "barrier": 0.41 if between else float("nan"),
    }
    attrs = {
        "kind": "landscape",
        "model": "unet seed 0",
        "path": "unet seed 0 to unet seed 1" if between else "random direction, filter-normalised",
        "provenance": json.dumps({"samples": 64, "device": "cpu", "versions": VERSIONS}),
    }
    return xr.Dataset(variables, {"position": position, "t": t}, attrs)


def training(models=4, seed=0):
    rng = np.random.default_rng(seed)
    names = ["unet seed 0", "unet seed 1", "dit seed 0", "mlp seed 0", *(f"extra {i}" for i in range(4))][:models]
    step = np.arange(10, 1501, 10)
    loss = np.stack(
        [(0.06 + 0.02 * i + 8 / (step + 8)) * np.exp(0.12 * rng.standard_normal(len(step))) for i in range(models)]
    )
    loss[-1, 100:] = np.nan
    facts = {"seconds": {name: 40.5 + 3 * i for i, name in enumerate(names)}, "device": "cpu", "versions": VERSIONS}
    attrs = {"kind": "training", "provenance": json.dumps(facts)}
    return xr.Dataset({"loss": (("model", "step"), loss)}, {"model": names, "step": step.astype(np.int32)}, attrs)


def recipe():
    t = np.linspace(0, 1, 101)
    density = 0.3 + np.exp(-0.5 * ((t - 0.3) / 0.18) ** 2)
    density /= density[:-1].mean()
    attrs = {
        "kind": "recipe",
        "title": "Train where the error is above the Gaussian denoiser's",
        "reasons": json.dumps(
            [
                "The excess over the Gaussian denoiser peaks at t = 0.30.",
                "The path between two seeds has a barrier <0.5>.",
            ]
        ),
        "settings": json.dumps({"timesteps": "clts(center=0.3, width=0.2)", "momentum": "mdlrc", "floor": 0.1}),
        "provenance": json.dumps({"versions": VERSIONS}),
    }
    return xr.Dataset({"density": ("t", density)}, {"t": t, "log_snr": ("t", _log_snr(t))}, attrs)


def everything(models=4, **options):
    return [
        comparison(models, **options),
        difficulty(),
        landscape(),
        landscape(between=False),
        training(min(models, 4)),
        recipe(),
    ]
