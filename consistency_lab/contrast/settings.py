"""What a GAN and a VAE are made of. This module imports no torch, so that the command line can read it at once."""

from __future__ import annotations

from dataclasses import dataclass

from consistency_lab.choices import Choice, chosen
from consistency_lab.errors import UserError
from consistency_lab.training.settings import LoopSettings


@dataclass(frozen=True)
class GANSettings(LoopSettings):
    """The settings of a GAN; together with the data they decide its result. Optimizer, momentum and clipping are those of both networks."""

    generator: Choice = chosen("dense", "contrast.networks:GENERATORS")
    """generator: dense, 'latent(latent=64, width=32)' or, from noise of the images' shape, \"image(network='unet')\""""
    discriminator: Choice = chosen("dense", "contrast.networks:DISCRIMINATORS")
    """discriminator: dense, 'conv(width=64)'"""
    penalty: float = 1.0
    """R1 and R2: weight of half the squared gradient of the discriminator at real images and at fakes (0: none)"""
    penalty_every: int = 1
    """they are taken every so many steps, that much heavier (Karras et al. 1912.04958, appendix B): they cost as much as all the rest"""
    lr_ratio: float = 1.0
    """learning rate of the discriminator as a multiple of the generator's"""
    steps: int = 6000
    """steps, each of which moves generator and discriminator once"""
    optimizer: Choice = chosen("adam(beta1=0.0, beta2=0.99)", "training.optimizers:OPTIMIZERS")
    """adam, 'adamw(weight_decay=0.01)' or 'sgd(momentum=0.0)'; momentum makes the two circle"""
    lr: float = 1e-3
    """peak learning rate of the generator"""
    clip_norm: float = 0.0
    """gradients are scaled down to this norm; 0: never"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalty >= 0:
            raise UserError(f"penalty must be 0 or more, not {self.penalty!r}.")
        if not self.penalty_every >= 1:
            raise UserError(f"penalty_every must be 1 or more, not {self.penalty_every!r}.")
        if not self.lr_ratio > 0:
            raise UserError(f"lr_ratio must be above 0, not {self.lr_ratio!r}.")


@dataclass(frozen=True)
class VAESettings(LoopSettings):
    """The settings of a VAE; together with the data they decide its result."""

    autoencoder: Choice = chosen("conv", "contrast.networks:AUTOENCODERS")
    """encoder and decoder: conv, 'conv(latent=32, width=32)'"""
    beta: float = 0.1
    """weight of the divergence: the variance that the decoder grants a pixel is half of it"""
    steps: int = 3000
    """optimizer steps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise UserError(f"beta must be above 0, not {self.beta!r}.")
