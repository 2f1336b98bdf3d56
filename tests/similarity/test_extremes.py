import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.similarity.checks import extremes_of, ranked
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.trajectories import to_bytes

SAMPLES = [3, 4, 7, 8, 9, 10, 20, 21, 22, 30]


@pytest.fixture
def result():
    """Ten samples whose MSE is least for 20 and most for 8; the cosine orders them the other way round."""
    mse = np.array([5, 6, 4, 9, 7, 3, 1, 2, 8, 5.5])
    distance = np.stack([mse, 10 - mse, -mse], axis=-1)  # PSNR falls as the MSE rises
    distance = np.stack([distance + 0.3, distance - 0.3])[:, None]
    return xr.Dataset(
        {"distance": (("pair", "t", "sample", "metric"), np.concatenate([0 * distance, distance], axis=1))},
        {"metric": ["mse", "cosine", "psnr"], "sample": np.array(SAMPLES, dtype=np.int32)},
    )


def test_samples_are_ranked_at_the_last_time_and_a_similarity_the_other_way_round(result):
    order = ranked(result, "mse")
    assert [SAMPLES[i] for i in order[:3]] == [20, 21, 10]
    assert SAMPLES[order[-1]] == 8
    assert (ranked(result, "psnr") == order).all()
    assert (ranked(result, "cosine") == order[::-1]).all()


def test_the_samples_of_both_ends_are_named_once_for_all_metrics(result):
    assert [SAMPLES[place] for place in extremes_of(result, count=2)] == [3, 8, 20, 21, 22, 30]  # 3 and 30 are medians


class Shown:
    facts = {}  # noqa: RUF012
    noise_shape = (1, 8, 8)

    def __init__(self, name, factor):
        self.name, self.factor = name, factor

    def generate(self, noise, indices):
        return torch.tanh(self.factor * noise.initial(indices, self.noise_shape))


@pytest.mark.parametrize("block", [None, 5])
def test_the_final_images_of_both_ends_are_kept(block):
    models = [Shown("a", 1.0), Shown("b", 0.8)]
    found = compare(models, count=20, block=block)
    numbers = found["extreme"].values
    assert numbers.tolist() == [found["sample"].values[i] for i in extremes_of(found)]
    for model, pictures in zip(models, found["extreme_images"].values, strict=True):
        np.testing.assert_array_equal(pictures, to_bytes(model.generate(SharedNoise(0), numbers.tolist())))


def test_few_samples_are_halved(result):
    small = result.isel(sample=slice(0, 3))
    assert [SAMPLES[place] for place in extremes_of(small.sel(metric=["mse"]))] == [3, 4, 7]
