"""The paper's U-Net, 35.7 M parameters on 32x32 colour images: everything runs on a CPU."""

import resource

import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import probe_landscape
from consistency_lab.similarity.compare import compare
from consistency_lab.training.train import load_model, train


@pytest.mark.slow
def test_training_sampling_comparing_and_probing_at_full_size(tmp_path):
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet("noise", pixels)
    settings = {"network": "unet-ddpm", "steps": 2, "batch": 4, "snapshots": 1, "lr_warmup": 0, "lr": 1e-4}
    models = [train(images, **settings, seed=seed, store=tmp_path) for seed in (0, 1)]
    assert models[0].facts["parameters"] == 35_746_307
    again = load_model(models[0].folder)
    assert torch.equal(
        again.generate(SharedNoise(0), range(2), Sampler(steps=2)),
        models[0].generate(SharedNoise(0), range(2), Sampler(steps=2)),
    )
    result = compare(models, count=4, sampler=Sampler(steps=3), levels=3, shown=2, images=images)
    assert result["distance"].notnull().all()
    assert probe_difficulty(models[0], images, count=2, bins=3)["error"].notnull().all()
    assert probe_landscape(models[0], images, towards=models[1], points=5, count=1, bins=2)["loss"].notnull().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 24 * 2**20  # KiB
