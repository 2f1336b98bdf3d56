"""A GAN and a VAE on the same images: what the diffusion models are contrasted with."""
