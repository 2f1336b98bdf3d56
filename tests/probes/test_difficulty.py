import json

import numpy as np
import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import denoising_loss, noisy_state
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.intervals import interval_of
from consistency_lab.kinds import difficulty as kind
from consistency_lab.plots import frames, probe_frames
from consistency_lab.probes.difficulty import UNITS, errors_per_sample, probe_difficulty
from consistency_lab.probes.frozen import frozen_grid
from consistency_lab.probes.profiles import VOID, difficulty_correlations, difficulty_table, with_void_marked
from consistency_lab.store.results import load_result, provenance, save_result
from consistency_lab.training.train import train


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
        (torch.randn(2000, 16, generator=generator, dtype=torch.float64) * variances.sqrt())
        .reshape(-1, 1, 4, 4)
        .float()
    )
    images = ImageSet("gaussian", pixels.clamp(-1, 1))
    denoiser = GaussianDenoiser(torch.zeros(1, 4, 4), torch.diag(variances), SCHEDULES.build(schedule))
    result = probe_difficulty(DiffusionModel("exact", denoiser), images, count=2000, bins=5)
    s2 = denoiser.schedule.noise_to_signal(torch.tensor(result["t"].values))[:, None] ** 2
    x0_error = (variances * s2 / (variances + s2)).mean(1)
    expected = {"x0": x0_error, "eps": x0_error / s2[:, 0]}
    for units, values in expected.items():
        _, low, high = interval_of(result.sel(units=units), "error_mean")
        slack = 2 * (high - low)
        assert np.allclose(result["error_mean"].sel(units=units), values, atol=slack.max() + 1e-6, rtol=0.05)


def test_excess_over_the_own_reference_is_zero(digits):
    result = probe_difficulty(model(digits), digits, count=40, bins=4)
    assert np.abs(result["excess"].sel(reference="gaussian", units="x0")).max() < 1e-6
    assert (result["excess"].sel(reference="optimal", units="x0").values[:2] > 0).all()  # it knows these very images
    assert (result["error_mean_low"] <= result["error_mean"]).all()
    assert result["error"].shape == (3, 4, 40)


def test_the_excess_over_the_optimal_denoiser_is_of_images_that_it_holds():
    # A set of one image over and over: its optimal denoiser answers with that image. A model that answers 0 is off by the image, in
    # units of x0 by its mean square; on an image of another sign the optimal denoiser would be off by four times that.
    schedule, image = SCHEDULES.build("linear"), torch.full((1, 1, 4, 4), 0.5)
    held = ImageSet("held", image.repeat(20, 1, 1, 1))
    other = ImageSet("other", -image.repeat(20, 1, 1, 1))
    zero = DiffusionModel("zero", GaussianDenoiser(torch.zeros(1, 4, 4), torch.zeros(16, 16), schedule))
    result = probe_difficulty(zero, other, count=16, bins=4, training_images=held)
    excess = result["excess"].sel(reference="optimal")
    to_eps = torch.exp(schedule.log_snr(torch.tensor(result["t"].values))).numpy()
    np.testing.assert_allclose(excess.sel(units="x0"), 0.25, rtol=1e-4)
    np.testing.assert_allclose(excess.sel(units="eps"), 0.25 * to_eps, rtol=1e-3)
    np.testing.assert_allclose(result["profile"].sel(definition="over optimal"), 0.25 * to_eps, rtol=1e-3)
    worse = result["error"] - result["reference_error"].sel(reference="optimal")  # on images that it does not hold
    np.testing.assert_allclose(worse.sel(units="x0").mean("sample"), 0.25 - 1.0, rtol=1e-3)
    assert provenance(result)["excess_over_optimal_on"] == "held"
    again = probe_difficulty(zero, held, count=16, bins=4)
    np.testing.assert_allclose(again["excess"].sel(reference="optimal"), excess, rtol=1e-6)


def test_fewer_training_images_than_images_are_enough(digits):
    result = probe_difficulty(model(digits), digits, count=40, bins=3, training_images=digits.split(6, seed=0)[0])
    assert np.isfinite(result["profile_low"].sel(definition="over optimal")).all()
    assert result.sizes["group"] == 6


def test_an_excess_of_held_out_images_in_an_old_result_is_void(digits):
    first, second = digits.split(60, 40, seed=0)
    new = probe_difficulty(model(first), second, count=20, bins=4, training_images=first)
    facts = provenance(new)
    del facts["excess_over_optimal_on"]
    old = new.assign_attrs(provenance=json.dumps(facts))
    assert with_void_marked(new) is new
    marked = with_void_marked(old)
    assert marked["excess"].sel(reference="optimal").isnull().all()
    assert marked["excess"].sel(reference="gaussian").equals(new["excess"].sel(reference="gaussian"))
    table = difficulty_table(old).set_index("definition")
    assert table.loc[VOID, "defined"] == 0
    assert np.isnan(table.loc[VOID, "peak_t"])
    assert "over optimal" not in table.index
    ranks = difficulty_correlations(old)
    assert ranks[(ranks["first"] == VOID) | (ranks["second"] == VOID)]["rho"].isna().all()
    shown = frames.difficulty(old)
    assert set(shown[shown["quantity"] == "excess"]["name"]) == {"Gaussian denoiser"}
    assert probe_frames.definitions(old).set_index("definition").loc[VOID, "value"].isna().all()
    assert VOID in kind._measures(old)
    itself = probe_difficulty(model(first), first, count=20, bins=4)
    facts = {key: value for key, value in provenance(itself).items() if key != "excess_over_optimal_on"}
    sound = itself.assign_attrs(provenance=json.dumps(facts))
    assert with_void_marked(sound) is sound  # it was taken on training images


def test_the_result_survives_the_disk(digits, tmp_path):
    result = probe_difficulty(model(digits), digits, count=10, bins=3)
    save_result(result, tmp_path / "d.nc")
    assert load_result(tmp_path / "d.nc").identical(result)


def test_a_single_image_gives_values_without_intervals(digits):
    result = probe_difficulty(model(digits), digits, count=1, bins=3)
    errors = result.sel(definition="eps error")
    assert np.isfinite(errors["profile"]).all()
    assert np.isnan(errors["profile_low"]).all()
    table = difficulty_table(result)
    assert table["peak_t"].notna().all()
    assert table["peak_t_low"].isna().all()
    assert table["share_below_low"].isna().all()
    with pytest.raises(UserError, match="at least 1 image, not 0"):
        probe_difficulty(model(digits), digits, count=4, bins=3, detail=0)


def test_too_many_images_are_refused(digits):
    with pytest.raises(UserError, match="choose between"):
        probe_difficulty(model(digits), digits, count=10**6)


def test_every_definition_of_a_trained_model_has_an_interval(digits, tmp_path):
    settings = {"network": "mlp(width=16, depth=1)", "steps": 200, "batch": 32, "snapshots": 4}
    trained = train(digits, store=tmp_path, device="cpu", progress=False, **settings)
    before = {name: value.clone() for name, value in trained.denoiser.state_dict().items()}
    result = probe_difficulty(trained, digits, count=40, bins=6, detail=20)
    assert all(torch.equal(value, before[name]) for name, value in trained.denoiser.state_dict().items())
    assert all(p.grad is None for p in trained.denoiser.parameters())
    assert set(result["definition"].values) >= {"eps error", "over gaussian", "KL rate", "half-time", "gradient noise"}
    np.testing.assert_allclose(result["profile"].sel(definition="eps error"), result["error_mean"].sel(units="eps"))
    known = np.isfinite(result["profile"].values)
    assert known.mean() > 0.9
    assert (result["profile_low"].values <= result["profile"].values)[known].all()
    half = result["profile"].sel(definition="half-time").values
    steps = provenance(result)["snapshots"]
    assert steps == [25, 75, 100, 200]
    assert ((half >= 25) & (half <= 200))[np.isfinite(half)].all()
    assert len(difficulty_table(result)) == len(result["definition"])
    save_result(result, tmp_path / "d.nc")
    assert load_result(tmp_path / "d.nc").identical(result)


def test_gradients_are_those_of_the_objective(digits):
    # One weight: the denoiser answers eps = w x_t, so that the gradient of sample i is 2 mean((w x_t - eps) x_t).
    class Scale(Denoiser):
        def __init__(self, schedule):
            super().__init__()
            self.schedule, self.shape = schedule, (1, 8, 8)
            self.weight = torch.nn.Parameter(torch.tensor(0.3))

        def predict(self, x_t, t, alpha, sigma, cond):
            return Prediction.of(x_t, self.weight * x_t, "eps", alpha, sigma)

    scaled = DiffusionModel("scale", Scale(SCHEDULES.build("linear")))
    result = probe_difficulty(scaled, digits, count=24, bins=3, detail=24)
    batch, _ = frozen_grid(digits, scaled, count=24, bins=3)
    x_t = noisy_state(scaled.denoiser.schedule, *batch.tensors)
    gradient = (2 * (0.3 * x_t - batch.tensors[2]) * x_t).flatten(1).mean(1).reshape(3, 24).double()
    np.testing.assert_allclose(result["profile"].sel(definition="gradient noise"), gradient.var(1).numpy(), rtol=1e-4)
    expected = gradient.mean(1) ** 2 - gradient.var(1) / 24
    np.testing.assert_allclose(result["profile"].sel(definition="gradient norm"), expected.numpy(), rtol=1e-4)
    np.testing.assert_allclose(result["noise_scale"], (gradient.var(1) / expected).numpy(), rtol=1e-4)


def test_a_half_time_needs_two_snapshots(digits, tmp_path):
    settings = {"network": "mlp(width=16, depth=1)", "steps": 20, "batch": 32}
    trained = train(digits, store=tmp_path, device="cpu", progress=False, **settings)
    result = probe_difficulty(trained, digits, count=4, bins=2)  # its folder has the last step only
    assert "half-time" not in result["definition"].values
    with pytest.raises(UserError, match="at least 2 snapshots, not 1"):
        probe_difficulty(trained, digits, count=4, bins=2, snapshots=[(20, trained)])
    given = probe_difficulty(trained, digits, count=4, bins=2, snapshots=[(1, model(digits)), (20, trained)])
    assert np.isnan(
        given["profile"].sel(definition="half-time")
    ).all()  # worse than the Gaussian denoiser: nothing fell
