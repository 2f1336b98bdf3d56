"""A PyTorch loop of your own with a timestep sampler and a momentum rule of this package.

Run it: python examples/plain_loop.py

What the loop owes the two pieces is marked with numbers; everything else is any PyTorch loop.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import consistency_lab as cl


def main(
    steps: int = 1000,
    batch: int = 128,
    timesteps: str = "clts(center=0.3, width=0.2)",
    momentum: str = "mdlrc",
    width: int = 256,
    seed: int = 0,
) -> list[float]:
    """Train a small network on digits to predict noise. Returns the loss of every step."""
    torch.manual_seed(seed)
    images = cl.load_images("digits").all().flatten(1)  # (N, 64) in [-1, 1]
    network = nn.Sequential(nn.Linear(65, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 64))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)

    schedule = cl.SCHEDULES.build("linear")
    sampler = cl.TIMESTEPS.build(timesteps, schedule, steps)  # 1. the density over t
    descent = cl.MomentumSchedule(optimizer, momentum, steps)  # 2. the momentum rule, on your optimizer
    generator = torch.Generator().manual_seed(seed)
    history = []
    for step in range(steps):
        x0 = images[torch.randint(len(images), (batch,), generator=generator)]
        t, weight = sampler.sample(batch, step, generator)  # 3. times of this step, and their weights in the loss
        alpha, sigma = schedule.alpha(t).float()[:, None], schedule.sigma(t).float()[:, None]
        eps = torch.randn(x0.shape, generator=generator)
        predicted = network(torch.cat([alpha * x0 + sigma * eps, t.float()[:, None]], 1))
        losses = (predicted - eps).pow(2).mean(1)
        optimizer.zero_grad()
        (weight.float() * losses).mean().backward()
        descent.step(
            1 - 0.5 * step / steps
        )  # 4. annealing of your own; or leave it out and use any torch.optim.lr_scheduler
        optimizer.step()
        sampler.update(t, losses.detach())  # 5. only samplers that adapt to the loss need it
        history.append(float(losses.detach().mean()))
    # A checkpoint keeps, beside network and optimizer: sampler.state_dict() and descent.state_dict().
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--timesteps", default="clts(center=0.3, width=0.2)")
    parser.add_argument("--momentum", default="mdlrc")
    losses = main(**vars(parser.parse_args()))
    print(f"loss of the first {min(50, len(losses))} steps: {sum(losses[:50]) / len(losses[:50]):.3f}")
    print(f"loss of the last {min(50, len(losses))} steps:  {sum(losses[-50:]) / len(losses[-50:]):.3f}")
