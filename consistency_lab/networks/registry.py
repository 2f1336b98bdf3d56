"""Networks by name, and the one function that builds them from a seed."""

from __future__ import annotations

from functools import partial
from typing import Any

from consistency_lab.choices import Choice, Registry
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.dit import DiT
from consistency_lab.networks.initialising import initialised
from consistency_lab.networks.mlp import MLP
from consistency_lab.networks.own import is_own, refuse_own
from consistency_lab.networks.unet import UNet
from consistency_lab.networks.uvit import UViT

# The network of Ho et al. 2020 for 32x32 images, 35.7 M parameters, with the settings of google/ddpm-cifar10-32.
_DDPM: dict[str, Any] = {
    "width": 128,
    "multipliers": (1, 2, 2, 2),
    "blocks": 2,
    "attention": (1,),
    "groups": 32,
    "norm_eps": 1e-6,
    "symmetric_padding": False,
    "shift": 1.0,
}


class _Networks(Registry[ImageNetwork]):
    """A network of the user's own is a choice that is looked up nowhere."""

    def resolve(self, text: str | Choice) -> Choice:
        choice = Choice.parse(text)
        return choice if is_own(choice) else super().resolve(choice)


NETWORKS: Registry[ImageNetwork] = _Networks(
    "network",
    {
        "unet": UNet,
        "dit": DiT,
        "mlp": MLP,
        "unet-ddpm": partial(UNet, **_DDPM),
        "dit-s2": partial(DiT, width=384, depth=12, heads=6, patch=2),
        "uvit-s": UViT,
    },
)


def build_network(choice: str | Choice, shape: tuple[int, int, int], classes: int = 0, seed: int = 0) -> ImageNetwork:
    """Build a network with initial weights that are a function of the seed alone.

    Args:
        choice: name and options, ``"unet"`` or ``"unet(width=32)"``.
        shape: (C, H, W) of the images.
        classes: number of labels; 0 for an unconditional network.
        seed: seed of the initialisation. The global random state is left as it was.

    Returns:
        The network on the CPU in float32, ``network(x, t, cond)`` -> shaped as x.

    Raises:
        UserError: an unknown name or option, options and image sizes that do not fit together, or a network of the user's own.
    """
    if is_own(choice):
        raise refuse_own(Choice.parse(choice))
    with initialised(seed):
        return NETWORKS.build(choice, shape, classes)
