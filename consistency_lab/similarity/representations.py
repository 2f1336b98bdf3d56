"""Do models that draw the same images compute them in the same way? Activations by layer name, and their linear CKA."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.loss import noisy_state
from consistency_lab.diffusion.model import DiffusionModel, chunks, described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.store.results import with_provenance


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
        layers: module names or shell patterns (``"network.up.*"``); only modules that give out one tensor can be captured.
        t: the time, in ``[t_min, t_max]``.
        images: whose first ``count`` are made noisy with the ``"probe"`` stream of ``noise``.
        noise: ``SharedNoise(0)`` by default.
        count: images.

    Returns:
        layer -> activations ``(count, features)`` float32 on the CPU, flattened; a transformer's tokens are features too.

    Raises:
        UserError: a layer that does not exist, that was not called, or that gives out something else than one tensor per image.
    """
    if not 1 <= count <= len(images):
        raise UserError(
            f"{count} images were asked for and {images.name!r} has {len(images)}; choose between 1 and that."
        )
    names = layer_names(model, layers)
    modules = dict(model.denoiser.named_modules())
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [modules[name].register_forward_hook(_keeper(kept[name], name)) for name in names]
    x0 = images.batch(torch.arange(count))
    eps = (noise or SharedNoise(0)).draw(range(count), images.shape, stream="probe")
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
    for name, parts in kept.items():
        if sum(len(part) for part in parts) != count:
            raise UserError(f"the layer {name!r} is not called once per image; choose another.")
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _keeper(parts: list[Tensor], name: str) -> Callable[[nn.Module, object, object], None]:
    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise UserError(
                f"the layer {name!r} gives out a {type(output).__name__}, not one tensor; capture one of its parts."
            )
        parts.append(output.detach().flatten(1).float().cpu())

    return keep


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of two sets of activations of the same inputs ``(N, F)`` and ``(N, G)``, from 0 to 1.

    Kornblith et al. (1905.00414, equation 3), with the unbiased estimator of HSIC (Song et al. 2012, equation 5): the biased one
    tends to 1 when there are more features than inputs. Computed from Gram matrices in float64. NaN for constant activations.

    Raises:
        UserError: other numbers of inputs, or fewer than 4, for which the estimator is not defined.
    """
    if len(a) != len(b) or len(a) < 4:
        raise UserError(f"CKA needs the same inputs for both, at least 4; got {len(a)} and {len(b)}.")
    grams = []
    for x in (a.double(), b.double()):
        centred = x - x.mean(0)
        gram = centred @ centred.T
        grams.append(gram - torch.diag(gram.diagonal()))
    own = [_hsic(gram, gram) for gram in grams]
    if min(own) <= 0:
        return float("nan")
    return _hsic(*grams) / (own[0] * own[1]) ** 0.5


def _hsic(k: Tensor, g: Tensor) -> float:
    """Unbiased HSIC of Gram matrices ``(N, N)`` whose diagonals are 0."""
    n = len(k)
    trace, sums = (k * g).sum(), k.sum() * g.sum() / ((n - 1) * (n - 2))
    cross = k.sum(0) @ g.sum(0)
    return float((trace + sums - 2 * cross / (n - 2)) / (n * (n - 3)))


@plain_defaults()
def compare_representations(
    a: DiffusionModel,
    b: DiffusionModel,
    layers: Mapping[str, str] | Sequence[str],
    images: ImageSet,
    *,
    times: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    noise: SharedNoise | None = None,
    count: int = 256,
) -> xr.Dataset:
    """Linear CKA of layers of two models at several noise levels, beside the same layers for inputs that do not correspond.

    Args:
        a, b: the models.
        layers: names or patterns of both, or a mapping from layers of ``a`` to layers of ``b`` for different architectures.
        images: see `capture`.
        times: in the time of ``a``; ``b`` is asked at the same log-SNR.
        noise, count: see `capture`.

    Returns:
        ``cka (layer, t)`` and ``null (layer, t)``, the CKA after rolling the inputs of ``b`` by one; kind ``"representations"``.
    """
    pairs = dict(layers) if isinstance(layers, Mapping) else {name: name for name in layer_names(a, layers)}
    cka, null = np.empty((2, len(pairs), len(times)))
    for column, t in enumerate(times):
        level = a.denoiser.schedule.log_snr(t)
        ours = capture(a, list(pairs), t, images, noise=noise, count=count)
        theirs = capture(
            b,
            list(pairs.values()),
            float(b.denoiser.schedule.time_from_log_snr(level)),
            images,
            noise=noise,
            count=count,
        )
        for row, (first, second) in enumerate(pairs.items()):
            cka[row, column] = linear_cka(ours[first], theirs[second])
            null[row, column] = linear_cka(ours[first], theirs[second].roll(1, 0))
    result = xr.Dataset(
        {"cka": (("layer", "t"), cka), "null": (("layer", "t"), null)},
        coords={"layer": list(pairs), "t": np.array(times, dtype=float)},
    )
    facts = {"models": [described(a), described(b)], "layers": pairs, "images": images.name, "used": count}
    return with_provenance(result, "representations", choices=("layer", "t"), **facts)
