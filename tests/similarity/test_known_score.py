"""On data whose score is known, a denoiser that is off by a known amount must be measured as off by that amount."""

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.mixture import MixtureDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen


class Off(Denoiser):
    """x0 estimates of another denoiser, scaled about the mean and moved."""

    def __init__(self, inner, scale=1.0, shift=0.0):
        super().__init__()
        self.inner, self.scale, self.shift = inner, scale, shift
        self.schedule, self.shape = inner.schedule, inner.shape

    def predict(self, x_t, t, alpha, sigma, cond):
        return Prediction.of(x_t, self.scale * self.inner(x_t, t).x0 + self.shift, "x0", alpha, sigma)


@pytest.mark.parametrize("law", ["gaussian(count=200)", "mixture(count=200)"])
@pytest.mark.parametrize("shift", [0.01, 0.3])
def test_a_shift_is_measured_as_its_square_at_every_frozen_state(law, shift):
    images = load_images(law)
    exact = MixtureDenoiser(images.law, SCHEDULES.build("linear"))
    models = [DiffusionModel("exact", exact), DiffusionModel("off", Off(exact, shift=shift))]
    result = compare_frozen(models, images, count=32, metrics=("mse",), levels=5)
    assert np.allclose(result["distance"], shift**2, rtol=1e-3)


@pytest.mark.parametrize("law", ["gaussian(count=200)", "mixture(count=200)"])
def test_a_scale_is_measured_as_its_share_of_each_estimate(law):
    images, schedule = load_images(law), SCHEDULES.build("linear")
    exact = MixtureDenoiser(images.law, schedule)
    models = [DiffusionModel("exact", exact), DiffusionModel("off", Off(exact, scale=1.1))]
    result = compare_frozen(models, images, SharedNoise(3), count=24, metrics=("mse",), levels=4)
    x0 = images.batch(torch.arange(24)).double()
    eps = SharedNoise(3).draw(range(24), images.shape, stream="probe").double()
    for k, t in enumerate(result["t"].values):
        state = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
        expected = (0.1 * exact(state, float(t)).x0).pow(2).flatten(1).mean(1)
        assert np.allclose(result["distance"].isel(t=k, pair=0, metric=0), expected, rtol=1e-3, atol=1e-8)


def test_the_last_step_alone_makes_the_image_off_by_what_it_adds():
    """DDIM ends in the x0 estimate of its last state: a denoiser that is off there alone moves each image by that."""
    images, schedule = load_images("mixture(count=200)"), SCHEDULES.build("linear")
    exact = MixtureDenoiser(images.law, schedule)

    class OffAtTheEnd(Off):
        def predict(self, x_t, t, alpha, sigma, cond):
            near_data = (t <= schedule.grid(10)[-2]).reshape(-1, 1, 1, 1)
            x0 = self.inner(x_t, t).x0
            return Prediction.of(x_t, torch.where(near_data, x0 + self.shift, x0), "x0", alpha, sigma)

    models = [DiffusionModel("exact", exact), DiffusionModel("off", OffAtTheEnd(exact, shift=0.2))]
    result = compare(models, count=16, metrics=("mse",), sampler=Sampler(steps=10), levels=11, ceiling=False)
    distance = result["distance"].isel(pair=0, metric=0)
    assert np.allclose(distance.isel(t=-1), 0.04, rtol=1e-4)
    assert np.allclose(distance.isel(t=slice(0, -2)), 0.0, atol=1e-10)
    null = result["null"].isel(pair=0, metric=0, t=-1).mean()
    assert float(result["score"].isel(pair=0, metric=0, t=-1)) == pytest.approx(1 - 0.04 / float(null), rel=1e-4)


def test_clipping_makes_models_more_alike_and_is_recorded():
    from consistency_lab.store.results import provenance

    images = load_images("mixture(count=200)")
    exact = MixtureDenoiser(images.law, SCHEDULES.build("linear"))
    models = [DiffusionModel("exact", exact), DiffusionModel("off", Off(exact, scale=3.0))]
    options = {"count": 16, "metrics": ("mse",), "ceiling": False}
    plain, clipped = (compare(models, sampler=Sampler(steps=10, clip=clip), **options) for clip in (False, True))
    assert float(clipped["distance"].isel(t=-1).mean()) < float(plain["distance"].isel(t=-1).mean())
    assert provenance(clipped)["sampler"]["clip"] is True
