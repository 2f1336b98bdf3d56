import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.checks import add_extremes, ranked
from consistency_lab.similarity.trajectories import Trajectories, to_bytes

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


def test_the_final_images_of_both_ends_are_kept_once_for_all_metrics(result):
    estimates = torch.linspace(-1, 1, 2 * 10 * 4).reshape(2, 10, 1, 2, 2)
    walked = [Trajectories("a", estimates), Trajectories("b", -estimates)]
    add_extremes(result, walked, [METRICS.build(name) for name in ("mse", "cosine", "psnr")], count=2)
    assert result["extreme"].values.tolist() == [8, 20, 21, 22]
    places = [SAMPLES.index(number) for number in (8, 20, 21, 22)]
    np.testing.assert_array_equal(result["extreme_images"][1], to_bytes(-estimates[-1, places]))


def test_few_samples_are_halved(result):
    small = result.isel(sample=slice(0, 3))
    add_extremes(small, [Trajectories("a", torch.zeros(2, 3, 1, 2, 2))], [METRICS.build("mse")])
    assert small["extreme"].values.tolist() == [4, 7]
