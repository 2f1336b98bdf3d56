import numpy as np
import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.probes.difficulty import UNITS, errors_per_sample, probe_difficulty
from consistency_lab.probes.frozen import frozen_grid
from consistency_lab.store.results import load_result, save_result


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def model(images, schedule="linear"):
    return DiffusionModel("wiener", GaussianDenoiser.fit(images.all(), SCHEDULES.build(schedule)))


def test_one_pass_gives_the_loss_in_every_unit(digits):
    denoiser = model(digits).denoiser
    batch, _ = frozen_grid(digits, model(digits), count=6, bins=3)
    together = errors_per_sample(denoiser, *batch.tensors)
    for column, units in enumerate(UNITS):
        assert torch.allclose(together[:, column], denoising_loss(denoiser, *batch.tensors, units=units), rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_the_wiener_filters_error_is_its_formula(schedule):
    # Gaussian data of known covariance: E|x0hat - x0|^2 = sum_k v_k s^2 / (v_k + s^2).
    variances = torch.linspace(0.002, 0.03, 16, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    pixels = (
        (torch.randn(4000, 16, generator=generator, dtype=torch.float64) * variances.sqrt())
        .reshape(-1, 1, 4, 4)
        .float()
    )
    images = ImageSet("gaussian", pixels.clamp(-1, 1))
    denoiser = GaussianDenoiser(torch.zeros(1, 4, 4), torch.diag(variances), SCHEDULES.build(schedule))
    result = probe_difficulty(DiffusionModel("exact", denoiser), images, count=4000, bins=5)
    s2 = denoiser.schedule.noise_to_signal(torch.tensor(result["t"].values))[:, None] ** 2
    x0_error = (variances * s2 / (variances + s2)).mean(1)
    expected = {"x0": x0_error, "eps": x0_error / s2[:, 0]}
    for units, values in expected.items():
        low, high = (result[f"error_{side}"].sel(units=units).values for side in ("low", "high"))
        slack = 3 * (high - low)
        assert np.allclose(result["error_mean"].sel(units=units), values, atol=slack.max() + 1e-6, rtol=0.05)


def test_excess_over_the_own_reference_is_zero(digits):
    result = probe_difficulty(model(digits), digits, count=40, bins=4)
    assert np.abs(result["excess"].sel(reference="gaussian", units="x0")).max() < 1e-6
    assert (result["excess"].sel(reference="optimal", units="x0").values[:2] > 0).all()  # it knows these very images
    assert (result["error_low"] <= result["error_mean"]).all()
    assert result["error"].shape == (3, 4, 40)


def test_the_result_survives_the_disk(digits, tmp_path):
    result = probe_difficulty(model(digits), digits, count=10, bins=3)
    save_result(result, tmp_path / "d.nc")
    assert load_result(tmp_path / "d.nc").identical(result)


def test_too_many_images_are_refused(digits):
    with pytest.raises(UserError, match="choose between"):
        probe_difficulty(model(digits), digits, count=10**6)
