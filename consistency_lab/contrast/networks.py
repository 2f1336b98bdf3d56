"""Generators, discriminator and autoencoder. Group norm only: each image is computed on its own, whatever the batch."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.choices import Registry, require_positive
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import ImageNetwork, require_multiple
from consistency_lab.networks.registry import NETWORKS

Shape = tuple[int, int, int]
_HALVINGS = 2
_GROUPS = 4  # of every group norm


class Block(nn.Module):
    """Two convolutions beside a shortcut; SiLU, because probes take second derivatives."""

    def __init__(self, inside: int, outside: int, groups: int):
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, inside) if groups else nn.Identity()
        self.conv_1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm_2 = nn.GroupNorm(groups, outside) if groups else nn.Identity()
        self.conv_2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.shortcut = nn.Conv2d(inside, outside, 1, bias=False) if inside != outside else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        hidden = self.conv_1(F.silu(self.norm_1(h)))
        # Over sqrt(2), so that the sum of two keeps the variance of one.
        return (self.shortcut(h) + self.conv_2(F.silu(self.norm_2(hidden)))) * 0.5**0.5


class ConvDecoder(nn.Module):
    """A latent vector to an image: a linear map to a quarter of the resolution, then residual blocks and doublings.

    Args:
        shape: (C, H, W) of the images; H and W multiples of 4.
        latent: length of the vector.
        width: channels at full resolution; twice that at half and at a quarter.

    Attributes:
        noise_shape: ``(latent,)``.
    """

    def __init__(self, shape: Shape, *, latent: int = 64, width: int = 32):
        super().__init__()
        _check(shape, latent=latent, width=width)
        self.shape, self.noise_shape = shape, (latent,)
        self.small = (2 * width, shape[1] // 4, shape[2] // 4)
        self.linear = nn.Linear(latent, self.small[0] * self.small[1] * self.small[2])
        widths = (2 * width, 2 * width, width)
        self.blocks = nn.ModuleList(
            [Block(widths[max(0, i - 1)], wide, groups=_GROUPS) for i, wide in enumerate(widths)]
        )
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.out = nn.Conv2d(width, shape[0], 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, latent)`` -> images ``(B, C, H, W)`` in [-1, 1]."""
        h = self.blocks[0](self.linear(z).unflatten(1, self.small))
        for block in list(self.blocks)[1:]:
            h = block(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return torch.tanh(self.out(F.silu(self.norm(h))))


class ImageGenerator(nn.Module):
    """A diffusion model's own network, evaluated once: noise of the images' shape in, an image out.

    It separates what the loss does from what the shape of the noise does: between pixels and a low-dimensional latent there is no
    preferred rotation, so two generators of latents have no reason to agree; here they have the reason that diffusion models have.

    Args:
        shape: (C, H, W) of the images.
        network: a name of `NETWORKS` with options.
        t: the time that the network is told, fixed.

    Attributes:
        noise_shape: ``shape``.
    """

    def __init__(self, shape: Shape, *, network: str = "unet", t: float = 1.0):
        super().__init__()
        self.shape, self.noise_shape, self.t = shape, shape, float(t)
        self.network: ImageNetwork = NETWORKS.build(network, shape, 0)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, C, H, W)`` noise -> images of the same shape in [-1, 1]."""
        return torch.tanh(self.network(z, z.new_full((len(z),), self.t)))


class ConvEncoder(nn.Module):
    """An image to a vector: residual blocks and halvings, mirrored to `ConvDecoder`, without norms.

    Args:
        shape: (C, H, W) of the images; H and W multiples of 4.
        outputs: length of the vector; 1 for a discriminator.
        width: channels at full resolution; twice that at half and at a quarter.
    """

    def __init__(self, shape: Shape, outputs: int = 1, *, width: int = 32):
        super().__init__()
        _check(shape, outputs=outputs, width=width)
        self.conv_in = nn.Conv2d(shape[0], width, 3, padding=1)
        widths = (width, 2 * width, 2 * width)
        self.blocks = nn.ModuleList([Block(widths[max(0, i - 1)], wide, groups=0) for i, wide in enumerate(widths)])
        self.hidden = nn.Linear(2 * width * (shape[1] // 4) * (shape[2] // 4), 4 * width)
        self.out = nn.Linear(4 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``."""
        h = self.blocks[0](self.conv_in(images))
        for block in list(self.blocks)[1:]:
            h = block(F.avg_pool2d(h, 2))
        return self.out(F.silu(self.hidden(F.silu(h).flatten(1))))


def dense(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """``depth`` hidden layers with SiLU, because probes take second derivatives."""
    require_positive(inputs=inputs, outputs=outputs, width=width, depth=depth)
    sizes = [inputs, *[width] * depth]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class DenseDecoder(nn.Module):
    """A latent vector to an image through fully connected layers: for small images the cheapest generator.

    Args:
        shape: (C, H, W) of the images.
        latent: length of the vector.
        width, depth: of the hidden layers.

    Attributes:
        noise_shape: ``(latent,)``.
    """

    def __init__(self, shape: Shape, *, latent: int = 64, width: int = 256, depth: int = 3):
        super().__init__()
        self.shape, self.noise_shape = shape, (latent,)
        self.layers = dense(latent, shape[0] * shape[1] * shape[2], width, depth)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, latent)`` -> images ``(B, C, H, W)`` in [-1, 1]."""
        return torch.tanh(self.layers(z)).unflatten(1, self.shape)


class DenseEncoder(nn.Module):
    """An image to a vector through fully connected layers.

    Args:
        shape: (C, H, W) of the images.
        outputs: length of the vector; 1 for a discriminator.
        width, depth: of the hidden layers.
    """

    def __init__(self, shape: Shape, outputs: int = 1, *, width: int = 256, depth: int = 3):
        super().__init__()
        self.layers = dense(shape[0] * shape[1] * shape[2], outputs, width, depth)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``."""
        return self.layers(images.flatten(1))


Generator = ConvDecoder | DenseDecoder | ImageGenerator
Discriminator = ConvEncoder | DenseEncoder


class GAN(nn.Module):
    """A generator and a discriminator that are saved together. ``noise_shape`` and ``shape`` are those of the generator."""

    def __init__(self, generator: Generator, discriminator: Discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.shape, self.noise_shape = generator.shape, generator.noise_shape

    def generate(self, z: Tensor) -> Tensor:
        """Noise ``(B, *noise_shape)`` -> images."""
        return self.generator(z)


class VAE(nn.Module):
    """A Gaussian encoder and a decoder (Kingma & Welling 1312.6114).

    Args:
        shape: (C, H, W) of the images; H and W multiples of 4.
        latent: length of the latent vector.
        width: of `ConvEncoder` and `ConvDecoder`.
    """

    def __init__(self, shape: Shape, *, latent: int = 32, width: int = 32):
        super().__init__()
        self.decoder = ConvDecoder(shape, latent=latent, width=width)
        self.encoder = ConvEncoder(shape, 2 * latent, width=width)
        self.shape, self.noise_shape = shape, self.decoder.noise_shape

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` -> mean and log variance of the posterior, each ``(B, latent)``."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 12.0)

    def generate(self, z: Tensor) -> Tensor:
        """Latents ``(B, latent)`` from the prior, a standard normal -> mean images of the decoder."""
        return self.decoder(z)


GENERATORS: Registry[Generator] = Registry(
    "generator", {"latent": ConvDecoder, "dense": DenseDecoder, "image": ImageGenerator}
)
DISCRIMINATORS: Registry[Discriminator] = Registry("discriminator", {"conv": ConvEncoder, "dense": DenseEncoder})
AUTOENCODERS: Registry[VAE] = Registry("autoencoder", {"conv": VAE})


def _check(shape: Shape, **sizes: int) -> None:
    require_positive(**sizes)
    if sizes["width"] % _GROUPS:
        raise UserError(f"width={sizes['width']} is not usable; give a multiple of {_GROUPS}.")
    require_multiple(shape, 2**_HALVINGS, f"the networks of a GAN or VAE halve them {_HALVINGS} times")
