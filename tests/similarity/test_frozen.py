import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen, drift


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


def gaussian(name, covariance, schedule="linear"):
    return DiffusionModel(name, GaussianDenoiser(torch.zeros(1, 8, 8), covariance, SCHEDULES.build(schedule)))


def test_two_linear_functions_differ_by_their_formula(digits):
    a, b = 0.5 * torch.eye(64), 0.2 * torch.eye(64)
    result = compare_frozen([gaussian("a", a), gaussian("b", b)], digits, count=64, levels=5)
    from consistency_lab.diffusion.noise import SharedNoise

    x0, eps = (
        digits.batch(torch.arange(64)).double(),
        SharedNoise(0).draw(range(64), (1, 8, 8), stream="probe").double(),
    )
    for t, log_snr in zip(result["t"].values, result["log_snr"].values, strict=True):
        s2 = np.exp(-log_snr)
        state = x0 + s2**0.5 * eps
        expected = ((0.5 / (0.5 + s2) - 0.2 / (0.2 + s2)) * state).pow(2).flatten(1).mean(1)
        assert np.allclose(result["distance"].sel(t=t, metric="mse").values[0], expected, rtol=1e-4)


def test_one_function_on_two_schedules_does_not_differ(digits):
    models = [gaussian(name, 0.3 * torch.eye(64), name) for name in ("linear", "cosine", "flow")]
    result = compare_frozen(models, digits, count=16, levels=6)
    assert result["distance"].sel(metric="mse").max() < 1e-9


def test_drift_is_nothing_for_equal_answers_and_bounded_by_one(digits):
    models = [gaussian("a", 0.5 * torch.eye(64)), gaussian("b", 0.2 * torch.eye(64))]
    along = compare(models, count=32, sampler=Sampler(steps=20), levels=8)
    frozen = compare_frozen(models, digits, count=32, levels=12)
    share = drift(along, frozen)
    assert share.dims == ("pair", "t")
    assert (share <= 1).all()
    assert np.allclose(drift(frozen, frozen), 0, atol=1e-6)


def test_bad_input_is_refused(digits):
    models = [gaussian("a", torch.eye(64)), gaussian("b", torch.eye(64))]
    with pytest.raises(UserError, match="choose between 2"):
        compare_frozen(models, digits, count=301)
    with pytest.raises(UserError, match="two or more models"):
        compare_frozen(models[:1], digits)
