"""Two networks up to the order of their hidden units: weight matching (Ainsworth, Hayase & Srinivasa 2209.04836, algorithm 1).

Hidden units can be exchanged without any change to what a network computes, so that two seeds may have found one minimum and number it
differently. Units that are added to each other carry one common permutation: the whole residual stream of the MLP has one, the inside of
each block another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion
from consistency_lab.errors import UserError
from consistency_lab.networks.mlp import MLP
from consistency_lab.probes.joining import check_joinable

Axes = tuple[str | None, ...]
Permutations = dict[str, np.ndarray]


def unit_axes(network: nn.Module) -> dict[str, Axes]:
    """For each parameter, which permutation each of its axes follows; None for axes whose order means something (pixels, features).

    The modulation's output is two blocks, scales and shifts of the same units: it counts as a tensor with a first axis of 2.

    Raises:
        UserError: a network other than the MLP.
    """
    if not isinstance(network, MLP):
        raise UserError(
            f"permutation alignment is defined for the MLP, not for {type(network).__name__}: groups of channels that are normalised "
            "together and attention heads allow some permutations of units only."
        )
    axes: dict[str, Axes] = {
        "embedding.linear_1.weight": ("time", None),
        "embedding.linear_1.bias": ("time",),
        "embedding.linear_2.weight": ("vector", "time"),
        "embedding.linear_2.bias": ("vector",),
        "embedding.label.weight": (None, "vector"),
        "linear_in.weight": ("stream", None),
        "linear_in.bias": ("stream",),
        "norm.weight": ("stream",),
        "norm.bias": ("stream",),
        "linear_out.weight": (None, "stream"),
        "linear_out.bias": (None,),
    }
    for i in range(len(network.blocks)):
        block, inside = f"blocks.{i}", f"block {i}"
        axes |= {
            f"{block}.norm.weight": ("stream",),
            f"{block}.norm.bias": ("stream",),
            f"{block}.linear_1.weight": (inside, "stream"),
            f"{block}.linear_1.bias": (inside,),
            f"{block}.modulation.weight": (None, inside, "vector"),
            f"{block}.modulation.bias": (None, inside),
            f"{block}.linear_2.weight": ("stream", inside),
            f"{block}.linear_2.bias": ("stream",),
        }
    return {name: axes[name] for name, _ in network.named_parameters()}


def _unfolded(network: nn.Module, axes: Mapping[str, Axes]) -> dict[str, Tensor]:
    """Weights with one axis for each entry of ``axes``."""
    return {
        name: p.detach().reshape(2, -1, *p.shape[1:]) if len(axes[name]) > p.dim() else p.detach()
        for name, p in network.named_parameters()
    }


def _sizes(weights: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> dict[str, int]:
    return {unit: weights[name].shape[i] for name, units in axes.items() for i, unit in enumerate(units) if unit}


def _ordered(weight: Tensor, units: Axes, permutations: Mapping[str, np.ndarray], but: str | None = None) -> Tensor:
    for axis, unit in enumerate(units):
        if unit is not None and unit != but:
            weight = weight.index_select(axis, torch.as_tensor(permutations[unit], device=weight.device))
    return weight


def permuted(network: nn.Module, permutations: Mapping[str, np.ndarray]) -> nn.Module:
    """A copy whose unit i of each kind is unit ``permutations[kind][i]`` of the network; it computes the same function.

    Raises:
        UserError: a network other than the MLP.
    """
    axes = unit_axes(network)
    weights, twin = _unfolded(network, axes), copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(_ordered(weights[name], axes[name], permutations).reshape(parameter.shape))
    return twin


def match_weights(target: nn.Module, network: nn.Module, passes: int = 100) -> Permutations:
    """The permutations of ``network`` that bring its weights near those of ``target``: a local maximum of their inner product.

    One kind of unit after the other is assigned at its best with the others held fixed (a linear assignment), from the identity on, until
    a whole pass improves nothing. The problem for all kinds at once is NP-hard; another start may end elsewhere.

    Raises:
        UserError: networks other than MLPs of one architecture.
    """
    axes = unit_axes(target)
    if unit_axes(network) != axes or any(
        a.shape != b.shape for a, b in zip(target.parameters(), network.parameters(), strict=True)
    ):
        raise UserError("only networks of one architecture and size can be aligned.")
    fixed, moved = _unfolded(target, axes), _unfolded(network, axes)
    found = {unit: np.arange(size) for unit, size in _sizes(fixed, axes).items()}
    for _ in range(passes):
        improved = False
        for unit, old in found.items():
            gain = torch.zeros(len(old), len(old), dtype=torch.float64)
            for name, units in axes.items():
                if unit in units:
                    axis = units.index(unit)
                    a, b = fixed[name], _ordered(moved[name], units, found, but=unit)
                    rows = [x.movedim(axis, 0).reshape(x.shape[axis], -1).double().cpu() for x in (a, b)]
                    gain += rows[0] @ rows[1].T
            value = gain.numpy()
            rows_of, best = linear_sum_assignment(value, maximize=True)
            before = value[rows_of, old].sum()
            if value[rows_of, best].sum() > before + 1e-9 * max(1.0, abs(before)):
                found[unit], improved = best, True
        if not improved:
            break
    return found


def aligned(model: DiffusionModel, to: DiffusionModel) -> DiffusionModel:
    """The same model with its hidden units in the order that matches those of another.

    Raises:
        UserError: what is no diffusion model; the network is not an MLP, or the two differ in more than their weights; the reason is given.
    """
    for each in (model, to):
        check_diffusion(each)
    target, denoiser = _denoiser(to), copy.deepcopy(_denoiser(model))
    check_joinable(target, denoiser, (to.name, model.name))
    denoiser.network = permuted(denoiser.network, match_weights(target.network, denoiser.network))
    return replace(model, name=f"{model.name} aligned", denoiser=denoiser.eval())


def _denoiser(model: DiffusionModel) -> NetworkDenoiser:
    if not isinstance(model.denoiser, NetworkDenoiser):
        raise UserError(f"permutation alignment needs networks of this package, and {model.name!r} has none.")
    return model.denoiser
