"""The latent diffusion learns, and its variants are compared with it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import consistency_lab as cl

pytest.importorskip("diffusers")


@pytest.mark.slow
def test_the_latent_diffusion_learns_and_its_variants_rank(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "latent_diffusion", Path(__file__).parents[2] / "examples" / "latent_diffusion.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    labels = torch.arange(200) % 10
    pixels = torch.full((200, 1, 28, 28), -1.0)
    for i, label in enumerate(labels):  # a bar at the height of its label
        pixels[i, 0, 2 * int(label) + 2 : 2 * int(label) + 6] = 0.8
    losses, table = module.main(cl.ImageSet("bars", pixels, labels), tmp_path / "pipeline", 20, 30, count=20)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    score = table.set_index("variant")["latents"]
    assert score["fp8 weights"] < score["bfloat16"] < 1
    assert (table["pixels_low"] <= table["pixels"]).all()
