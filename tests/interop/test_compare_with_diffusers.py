"""A model that was trained in a plain diffusers loop beside one that was trained here, on the same images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from consistency_lab.addresses import open_foreign
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler, start_state
from consistency_lab.similarity.compare import compare
from consistency_lab.training.train import train

diffusers = pytest.importorskip("diffusers")


def train_in_diffusers(images, network, folder, steps):
    """The loop of diffusers' own documentation."""
    generator = torch.Generator().manual_seed(0)
    scheduler = diffusers.DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (64,), generator=generator)]
        noise = torch.randn(x0.shape, generator=generator)
        timesteps = torch.randint(1000, (64,), generator=generator)
        loss = F.mse_loss(network(scheduler.add_noise(x0, noise, timesteps), timesteps).sample, noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    network.save_pretrained(folder)
    scheduler.save_pretrained(folder)
    return losses


def test_both_are_compared_in_one_call(save_unet, their_images, tmp_path):
    images = load_images("digits")
    network = diffusers.UNet2DModel.from_pretrained(save_unet(), low_cpu_mem_usage=False)
    losses = train_in_diffusers(images.all(), network.train(), tmp_path / "theirs", steps=60)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    theirs = open_foreign(f"diffusers:{tmp_path / 'theirs'}", device="cpu")
    start = start_state(theirs.denoiser, SharedNoise(0).initial(range(16), images.shape, "cpu"))
    expected = their_images(tmp_path / "theirs", start, 50)
    size = expected.abs().max()  # so short a training leaves values far outside of [-1, 1]
    made = theirs.generate(SharedNoise(0), range(16), Sampler(steps=50))
    torch.testing.assert_close(made / size, expected / size, atol=1e-5, rtol=0)
    ours = train(
        images,
        network="unet(width=8, multipliers=(1, 2), attention=(1,))",
        lr=2e-3,
        batch=64,
        steps=60,
        name="ours",
        device="cpu",
        progress=False,
    )
    result = compare(
        [theirs, ours], SharedNoise(0), count=16, sampler=Sampler(steps=10), images=images, levels=4, shown=2
    )
    assert result["pair"].values.tolist() == ["theirs | ours"]
    # Alike from the same noise, more than from other noise: the models met on one alignment, in one convention.
    assert theirs.denoiser.schedule == ours.denoiser.schedule
    alike = result.sel(metric="mse", pair="theirs | ours")
    assert float(alike["distance"].isel(t=1).mean()) < 0.5 * float(alike["null"].isel(t=1).mean())
    assert np.isfinite(result["distance"].values).all()
