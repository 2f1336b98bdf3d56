"""Small models of one architecture on a GPU, sampled at once: their stacked networks answer in the place of one after another.

A small network leaves a GPU idle between its kernels. On a processor stacked networks are slower than one after the other
(benchmarks/RESULTS.md), so there they are not stacked. Images agree with those of a model by itself to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.networks.stacked import SMALL, StackedNetwork, stackable


def sampled_at_once(models: Sequence[DiffusionModel]) -> list[list[DiffusionModel]]:
    """The groups of two models or more that are sampled at once; models that are in none are sampled by themselves."""
    groups: list[list[DiffusionModel]] = []
    for model in models:
        if not _small(model):
            continue
        fits = next((group for group in groups if _alike(group[0], model)), None)
        if fits is None:
            groups.append([model])
        else:
            fits.append(model)
    return [group for group in groups if len(group) > 1]


def stacked(models: Sequence[DiffusionModel]) -> DiffusionModel:
    """One model whose k-th part of a batch is the k-th model's, of a group of `sampled_at_once`."""
    first, base = models[0], _network_denoiser(models[0])
    network = StackedNetwork([_network_denoiser(model).network for model in models])
    denoiser = NetworkDenoiser(network, base.schedule, base.shape, base.predicts)
    return DiffusionModel(f"{len(models)} at once", denoiser.eval(), classes=first.classes)


def _network_denoiser(model: DiffusionModel) -> NetworkDenoiser:
    assert isinstance(model.denoiser, NetworkDenoiser)  # as `_small` has it
    return model.denoiser


def _small(model: DiffusionModel) -> bool:
    return (
        type(model.denoiser) is NetworkDenoiser
        and model.device.type == "cuda"
        and sum(p.numel() for p in model.denoiser.parameters()) <= SMALL
    )


def _alike(one: DiffusionModel, other: DiffusionModel) -> bool:
    a, b = _network_denoiser(one), _network_denoiser(other)
    if (a.schedule, a.predicts, a.shape, one.classes) != (b.schedule, b.predicts, b.shape, other.classes):
        return False
    try:
        stackable([a.network, b.network])
    except UserError:
        return False
    return True
