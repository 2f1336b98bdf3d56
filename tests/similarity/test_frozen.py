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
    frozen = compare_frozen(models, digits, count=32, along=along)
    assert np.array_equal(frozen["t"], along["t"][:-1])
    share = frozen["drift"]
    assert share.dims == ("pair", "t", "metric")
    assert (share.fillna(0) <= 1).all()
    share = share.sel(metric="mse")
    assert ((frozen["drift_low"].sel(metric="mse") < share) & (share < frozen["drift_high"].sel(metric="mse"))).all()
    means = [x["distance"].sel(metric="mse").mean("sample").values for x in (frozen, along)]
    assert np.allclose(share, 1 - means[0] / means[1][:, :-1], rtol=1e-4)
    assert np.allclose(frozen["along_distance"].sel(metric="mse"), means[1][:, :-1], rtol=1e-5)
    assert frozen["drift"].sel(metric="cosine").isnull().all()  # scaled alike: their cosines differ by rounding alone
    assert np.allclose(drift(frozen, frozen)["drift"].sel(metric="mse"), 0, atol=1e-6)


def test_the_drift_of_two_gaussians_is_that_of_their_closed_forms(digits):
    models = [gaussian("a", 0.5 * torch.eye(64)), gaussian("b", 0.2 * torch.eye(64))]
    along = compare(models, count=250, sampler=Sampler(steps=200), levels=5, metrics=["mse"], ceiling=False)
    frozen = compare_frozen(models, digits, count=250, metrics=["mse"], along=along)
    # At s = sigma / alpha a trajectory of the Gaussian with variance v is at x(s) = (v + s^2)^1/2 (v + S^2)^-1/2 x(S).
    start, states = np.exp(-0.5 * float(along["log_snr"][0])), digits.batch(torch.arange(250)).double()
    for t, log_snr in zip(frozen["t"].values[1:], frozen["log_snr"].values[1:], strict=True):
        s2 = np.exp(-log_snr)
        gain = {v: v / (v + s2) for v in (0.5, 0.2)}
        own = {v: gain[v] * ((v + s2) / (v + start**2)) ** 0.5 * start for v in (0.5, 0.2)}
        still = (gain[0.5] - gain[0.2]) ** 2 * (float(states.pow(2).mean()) + s2)
        found = frozen.sel(t=t, metric="mse", pair="a | b")
        expected = 1 - still / (own[0.5] - own[0.2]) ** 2
        assert found["drift_low"] < expected < found["drift_high"]
        assert found["drift"] == pytest.approx(expected, abs=0.1)


def test_equal_models_have_no_distance_to_divide(digits):
    models = [gaussian("a", 0.5 * torch.eye(64)), gaussian("b", 0.5 * torch.eye(64))]
    along = compare(models, count=8, sampler=Sampler(steps=4), levels=3)
    frozen = compare_frozen(models, digits, count=8, metrics=["mse"], along=along)
    assert (frozen["distance"] == 0).all()
    assert (frozen["along_distance"] == 0).all()
    assert frozen["drift"].isnull().all()


def test_bad_input_is_refused(digits):
    models = [gaussian("a", torch.eye(64)), gaussian("b", torch.eye(64))]
    with pytest.raises(UserError, match="choose between 2"):
        compare_frozen(models, digits, count=301)
    with pytest.raises(UserError, match="two or more models"):
        compare_frozen(models[:1], digits)
    with pytest.raises(UserError, match="images are given as an image set"):
        compare_frozen(models, "digits")
    along = compare(models, count=4, sampler=Sampler(steps=4), levels=3, metrics=["mse"])
    with pytest.raises(UserError, match="the comparison is of a, b and the models are b, a"):
        compare_frozen(models[::-1], digits, count=4, along=along)
    with pytest.raises(UserError, match="did not measure 'cosine'"):
        compare_frozen(models, digits, count=4, along=along)
    frozen = compare_frozen(models, digits, count=4, levels=2, metrics=["mse"])
    with pytest.raises(UserError, match="not a result of kind 'frozen comparison'"):
        compare_frozen(models, digits, count=4, metrics=["mse"], along=frozen)
    with pytest.raises(UserError, match="different noise levels"):
        drift(along, frozen.assign_coords(pair_log_snr=frozen["pair_log_snr"] + 1))
