"""The training loop of diffusers' examples, with a timestep sampler and a momentum rule of this package.

Run it: python examples/diffusers_loop.py (it needs diffusers: pip install diffusers)

diffusers draws integer timesteps with torch.randint. Here they are the cells of a sampler's density, one cell per timestep.
"""

from __future__ import annotations

import argparse

import torch
from diffusers import DDPMScheduler, UNet2DModel

import consistency_lab as cl


def main(
    steps: int = 300,
    batch: int = 64,
    timesteps: str = "edm_lognormal(floor=0.05)",
    momentum: str = "mdlrc",
    channels: int = 32,
    seed: int = 0,
) -> list[float]:
    """Train diffusers' U-Net on digits to predict noise. Returns the loss of every step."""
    torch.manual_seed(seed)
    images = cl.load_images("digits").all()  # (N, 1, 8, 8) in [-1, 1]
    model = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(channels, channels),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    sampler = cl.TIMESTEPS.build(timesteps, cl.SCHEDULES.build("linear"), steps)
    cl.MomentumSchedule(optimizer, momentum, steps)  # acts in every optimizer.step()
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.02, total_iters=min(50, steps))
    generator = torch.Generator().manual_seed(seed)
    history = []
    for step in range(steps):
        clean = images[torch.randint(len(images), (batch,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator)
        t, weight = sampler.sample(batch, step, generator)
        # Instead of torch.randint(0, 1000, ...): the cell of t is diffusers' timestep.
        indices = ((t - sampler.low) / (sampler.high - sampler.low) * 1000).long().clamp(max=999)
        noisy = noise_scheduler.add_noise(clean, noise, indices)
        predicted = model(noisy, indices).sample
        losses = (predicted - noise).pow(2).flatten(1).mean(1)
        (weight.float() * losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        optimizer.zero_grad()
        sampler.update(t, losses.detach())
        history.append(float(losses.detach().mean()))
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--timesteps", default="edm_lognormal(floor=0.05)")
    parser.add_argument("--momentum", default="mdlrc")
    losses = main(**vars(parser.parse_args()))
    print(f"loss of the first {min(50, len(losses))} steps: {sum(losses[:50]) / len(losses[:50]):.3f}")
    print(f"loss of the last {min(50, len(losses))} steps:  {sum(losses[-50:]) / len(losses[-50:]):.3f}")
