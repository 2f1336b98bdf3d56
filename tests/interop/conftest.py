"""Small models as diffusers saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

TINY: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.fixture
def save_unet(tmp_path: Path) -> Callable[..., Path]:
    """Save a tiny UNet2DModel with its scheduler beside it; options are the network's, ``scheduler`` a dict or None."""

    diffusers = pytest.importorskip("diffusers")

    def save(name: str = "unet", scheduler: dict[str, Any] | None = None, **options: Any) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / name
        diffusers.UNet2DModel(**{**TINY, **options}).save_pretrained(folder)
        if scheduler is not None:
            diffusers.DDPMScheduler(**scheduler).save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def their_images() -> Callable[[Path, torch.Tensor, int], torch.Tensor]:
    """Sample with diffusers alone: its network under its DDIMScheduler, set as that is right (trailing, no clipping)."""

    diffusers = pytest.importorskip("diffusers")

    def sample(folder: Path, start: torch.Tensor, steps: int) -> torch.Tensor:
        network = diffusers.UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
        config = diffusers.DDPMScheduler.from_pretrained(folder).config
        scheduler = diffusers.DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
        scheduler.set_timesteps(steps)
        x = start.float()
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                x = scheduler.step(network(x, timestep).sample, timestep, x).prev_sample
        return x

    return sample
