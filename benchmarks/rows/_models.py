"""Untrained models of one architecture whose last layers are not zero, as training leaves them."""


def models(network, shape, count):
    import torch
    from torch import nn

    from consistency_lab.diffusion.denoiser import NetworkDenoiser
    from consistency_lab.diffusion.model import DiffusionModel
    from consistency_lab.diffusion.schedule import SCHEDULES
    from consistency_lab.networks.registry import build_network

    made = []
    for seed in range(count):
        built = build_network(network, shape, seed=seed)
        drawn = torch.Generator().manual_seed(seed)
        for parameter in built.parameters():
            if not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.02, generator=drawn)
        denoiser = NetworkDenoiser(built, SCHEDULES.build("linear"), shape).eval()
        made.append(DiffusionModel(f"{network}-s{seed}", denoiser))
    return made
