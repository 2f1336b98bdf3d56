"""Do models that draw the same images compute them in the same way? Activations by layer name, and their linear CKA."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.loss import noisy_state
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, chunks, described
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.intervals import Interval, add_interval, crossed_jackknife, jackknife
from consistency_lab.similarity.checks import check_arguments, counted
from consistency_lab.similarity.pairwise import FAMILY
from consistency_lab.similarity.statistics import pairs_of
from consistency_lab.store.results import with_provenance

NOTE = "linear CKA, unbiased; 1: equal up to rotation, scale and offset; 0: nothing in common. Null: other inputs."


def layer_names(model: DiffusionModel, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Names of the model's modules that match any of the shell patterns, in the order in which they are defined.

    Raises:
        UserError: a pattern that matches nothing, with the nearest name.
    """
    names = [name for name, _ in model.denoiser.named_modules() if name]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise unknown_name("layer", pattern, names)
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


@torch.no_grad()
@plain_defaults()
def capture(
    model: DiffusionModel,
    layers: Sequence[str],
    t: float,
    images: ImageSet,
    *,
    noise: SharedNoise | None = None,
    count: int = 256,
) -> dict[str, Tensor]:
    """What named layers give out for the first images at one noise level.

    Args:
        model: any diffusion model.
        layers: module names or shell patterns (``"network.up.*"``). Only modules that are called once and give out one tensor with a row
            an image can be captured; a pattern leaves out the others that it matches.
        t: the time, in ``[t_min, t_max]``.
        images: whose first ``count`` are made noisy with the ``"probe"`` stream of ``noise``.
        noise: ``SharedNoise(0)`` by default.
        count: images.

    Returns:
        layer -> activations ``(count, features)`` float32 on the CPU, flattened; a transformer's tokens are features too. All are held
        at once: count x features x 4 bytes a layer.

    Raises:
        UserError: a layer that does not exist, one that was named and cannot be captured, or patterns that leave none.
    """
    check_diffusion(model)
    check_set(images)
    check_noise(noise)
    (count,) = counted(count=count)
    check_shape(model.name, model.noise_shape, images)
    if not 1 <= count <= len(images):
        raise UserError(
            f"{count} images were asked for and {images.name!r} has {len(images)}; choose between 1 and that."
        )
    names = layer_names(model, layers)
    modules = dict(model.denoiser.named_modules())
    kept: dict[str, list[object]] = {name: [] for name in names}
    handles = [modules[name].register_forward_hook(_keeper(kept[name])) for name in names]
    x0, eps = _noisy(images, noise, count)
    try:
        with measuring():
            for chunk in chunks(range(count)):
                index = torch.tensor(list(chunk))
                times = torch.full((len(chunk),), t, dtype=torch.float64)
                state = noisy_state(model.denoiser.schedule, x0[index], times, eps[index]).to(model.device)
                model.denoiser(state, t, model.labels(chunk))
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, parts in kept.items():
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if len(tensors) == len(parts) and sum(map(len, tensors)) == count and all(part.ndim > 1 for part in tensors):
            found[name] = torch.cat(tensors).flatten(1)
        elif name in layers:
            raise UserError(
                f"the layer {name!r} does not give out one tensor with a row an image, once; choose another."
            )
    if not found:
        raise UserError(f"no layer that {', '.join(layers)} matches gives out one tensor with a row an image, once.")
    return found


def _noisy(images: ImageSet, noise: SharedNoise | None, count: int) -> tuple[Tensor, Tensor]:
    """The first images, and the noise that is put on them, on the CPU wherever the set is."""
    eps = (noise or SharedNoise(0)).draw(range(count), images.shape, stream="probe")
    return images.batch(range(count), "cpu"), eps


def _keeper(parts: list[object]) -> Callable[[nn.Module, object, object], None]:
    def keep(module: nn.Module, inputs: object, output: object) -> None:
        parts.append(output.detach().float().cpu() if isinstance(output, Tensor) else None)

    return keep


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of two sets of activations of the same inputs ``(N, F)`` and ``(N, G)``, from 0 to 1.

    Kornblith et al. (1905.00414, equation 3), with the unbiased estimator of HSIC (Song et al. 2012, equation 5): the biased one
    tends to 1 when there are more features than inputs. Computed from Gram matrices in float64. NaN for constant activations.

    Raises:
        UserError: other numbers of inputs, or fewer than 4, for which the estimator is not defined.
    """
    return float(_cka(_gram(a), _gram(b))[0])


def _gram(x: Tensor) -> Tensor:
    """The Gram matrix ``(N, N)`` of centred rows, float64, its diagonal 0."""
    if len(x) < 4:
        raise UserError(f"CKA needs the same inputs for both, at least 4; got {len(x)}.")
    centred = x.double() - x.double().mean(0)
    gram = centred @ centred.T
    return gram - torch.diag(gram.diagonal())


def _cka(k: Tensor, g: Tensor) -> np.ndarray:
    """CKA of two Gram matrices, of all inputs and with each left out in turn: ``(1 + N,)``; NaN where activations are constant."""
    if len(k) != len(g):
        raise UserError(f"CKA needs the same inputs for both, at least 4; got {len(k)} and {len(g)}.")
    cross, own, other = (_hsic(*pair).numpy() for pair in ((k, g), (k, k), (g, g)))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = cross / np.sqrt(own * other)
    return np.where((own > 0) & (other > 0), found, np.nan)


def _hsic(k: Tensor, g: Tensor) -> Tensor:
    """Unbiased HSIC of Gram matrices ``(N, N)`` whose diagonals are 0: of all, and with each input left out in turn, ``(1 + N,)``.

    The estimator does not see what is added to whole rows and columns, so that the matrices need not be centred again without an input.
    Without input m its row sums k_i become k_i - K_im, and the sums of products follow from those over all.
    """
    n = len(k)
    rows, others, both = k.sum(0), g.sum(0), (k * g).sum(0)
    products = both.sum(), k.sum(), g.sum(), rows @ others
    without = (
        products[0] - 2 * both,
        products[1] - 2 * rows,
        products[2] - 2 * others,
        products[3] - rows * others - g @ rows - k @ others + both,
    )
    trace, one, other, cross = (torch.cat([a[None], b]) for a, b in zip(products, without, strict=True))
    m = torch.full((n + 1,), float(n - 1), dtype=torch.float64)
    m[0] = n
    return (trace + one * other / ((m - 1) * (m - 2)) - 2 * cross / (m - 2)) / (m * (m - 3))


@plain_defaults()
def compare_representations(
    models: Sequence[DiffusionModel],
    images: ImageSet,
    layers: Mapping[str, str] | Sequence[str] = ("*",),
    *,
    times: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    noise: SharedNoise | None = None,
    count: int = 256,
) -> xr.Dataset:
    """Do models compute alike? Linear CKA of their layers for the same noisy images, at several noise levels.

    CKA does not see rotation, scale or offset. Two controls stand beside it: the same layers for inputs that do not correspond (about 0),
    and the noisy images themselves in the place of the second model: layers that have hardly changed their input agree for that reason.

    Args:
        models: two or more.
        images: see `capture`; 5 or more of them.
        layers: names or patterns that all models have (by default all that can be captured), or a mapping from layers of the first to
            layers of the second for two different architectures. Layers that cannot be captured are left out of a pattern.
        times: in the time of the first model; the others are asked at the same log-SNR.
        noise, count: see `capture`.

    Returns:
        ``cka (pair, layer, t)`` with an interval over images: these models; ``null`` (inputs of the second model moved on by one) and
        ``input_cka (model, layer, t)``; with three models or more ``family_cka (layer, t)``, the mean over pairs, with an interval over
        models and images. Kind ``"representations"``.

    Raises:
        UserError: fewer than two models, layers that not all of them have or that cannot be captured, times outside a schedule.
    """
    check_arguments(models, noise, ("cka",), images)
    if len(models) < 2 or (isinstance(layers, Mapping) and len(models) != 2):
        raise UserError(
            f"layers are compared of two models or more, and mapped to each other for two; not for {len(models)}."
        )
    if isinstance(layers, str):
        raise UserError(f"layers are given as a list; write layers=[{layers!r}].")
    for model in models:
        check_diffusion(model)
    (count,) = counted(count=count)
    if count < 5:
        raise UserError(f"CKA with an interval needs 5 images or more, not {count}.")
    if not len(times):
        raise UserError("CKA needs one noise level or more: times=(0.3, 0.7).")
    pairs, by_time, nulls, inputs = pairs_of(len(models)), [], [], []
    for t in times:
        names, grams, state = _grams(models, layers, t, images, noise, count)
        by_time.append([[_cka(k, g) for k, g in zip(grams[a], grams[b], strict=True)] for a, b in pairs])
        moved = [[gram.roll((1, 1), (0, 1)) for gram in each] for each in grams]
        nulls.append([[_cka(k, g)[0] for k, g in zip(grams[a], moved[b], strict=True)] for a, b in pairs])
        inputs.append([[_cka(gram, state)[0] for gram in each] for each in grams])
    values = np.moveaxis(np.array(by_time), (0, 3), (2, 3))  # (pair, layer, t, 1 + N)
    result = xr.Dataset(
        coords={
            "model": [model.name for model in models],
            "pair": [f"{models[a].name} | {models[b].name}" for a, b in pairs],
            "layer": names,
            "t": np.array(times, dtype=float),
        }
    )
    dims = ("pair", "layer", "t")
    add_interval(result, "cka", dims, _up_to_one(jackknife(values[..., 0], np.moveaxis(values[..., 1:], 3, 0))))
    result["null"] = (dims, np.moveaxis(np.array(nulls), 0, 2))
    result["input_cka"] = (("model", "layer", "t"), np.moveaxis(np.array(inputs), 0, 2))
    result.attrs["interval"] = "95 %, delete-one-image jackknife: these models"
    if len(models) > 2:
        without = [values[[k not in pair for pair in pairs], ..., 1:].mean(0) for k in range(len(models))]
        family = crossed_jackknife(values[..., 0].mean(0), [np.moveaxis(np.array(without), 3, 1)])
        add_interval(result, "family_cka", dims[1:], _up_to_one(family))
        family_interval = FAMILY.format(dof=len(models) - 1, count=len(models))
        result.attrs["family_interval"] = family_interval.replace("noise", "images")
    result.attrs["note"] = NOTE
    asked = dict(layers) if isinstance(layers, Mapping) else list(layers)
    facts = {"models": [described(model) for model in models], "images": images.name, "used": count}
    return with_provenance(result, "representations", choices=("layer", "t"), layers=asked, **facts)


def _grams(
    models: Sequence[DiffusionModel],
    layers: Mapping[str, str] | Sequence[str],
    t: float,
    images: ImageSet,
    noise: SharedNoise | None,
    count: int,
) -> tuple[list[str], list[list[Tensor]], Tensor]:
    """The layers by name, the Gram matrix of each in each model at the noise level of ``t``, and that of the noisy images."""
    mapped = isinstance(layers, Mapping)
    asked = [list(layers), list(layers.values())] if isinstance(layers, Mapping) else [list(layers)] * len(models)
    schedule = models[0].denoiser.schedule
    level = schedule.log_snr(t)
    at = [t, *(float(model.denoiser.schedule.time_from_log_snr(level)) for model in models[1:])]
    found = [
        capture(model, wanted, time, images, noise=noise, count=count)
        for model, wanted, time in zip(models, asked, at, strict=True)
    ]
    if not mapped and len({tuple(each) for each in found}) > 1:
        raise UserError(
            "the models do not have the same layers under those names; map the layers of one to those of the other: "
            "layers={'network.a': 'network.b'}."
        )
    grams = [
        [_gram(each[name]) for name in (wanted if mapped else each)] for each, wanted in zip(found, asked, strict=True)
    ]
    x0, eps = _noisy(images, noise, count)
    state = noisy_state(schedule, x0, torch.full((count,), t, dtype=torch.float64), eps)
    return asked[0] if mapped else list(found[0]), grams, _gram(state.flatten(1))


def _up_to_one(interval: Interval) -> Interval:
    """A bound beyond what CKA can be is drawn back, which cannot change whether the interval covers the truth."""
    return Interval(interval.estimate, np.clip(interval.low, -1, 1), np.clip(interval.high, -1, 1))
