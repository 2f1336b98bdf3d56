import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.kinds.numbers import headline
from consistency_lab.kinds.words import caveats
from consistency_lab.plots.reading import warnings
from consistency_lab.similarity.compare import compare
from consistency_lab.store.results import load_result, provenance, save_result
from consistency_lab.training.train import train

SHAPE = (1, 8, 8)
FEW = {"count": 24, "sampler": Sampler(steps=20), "levels": 6, "shown": 4}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


def gaussian(name, seed=0, schedule="linear"):
    """A Gaussian denoiser fitted to its own random half of the digits."""
    half = load_images("digits").split(898, 899, seed=seed)[0]
    return DiffusionModel(name, GaussianDenoiser.fit(half.all(), SCHEDULES.build(schedule)))


@pytest.fixture(scope="module")
def family():
    return [gaussian(name, seed) for seed, name in enumerate("abcd")]


def test_the_result_has_its_dimensions_and_knows_where_it_came_from(family, digits, tmp_path):
    result = compare(family, SharedNoise(2**40), images=digits, **FEW)
    sizes = dict(result.sizes)
    assert 8 <= sizes.pop("extreme") <= 24
    assert sizes == {
        "model": 4, "pair": 6, "t": 6, "sample": 24, "metric": 3, "shown": 4, "channel": 1, "row": 8, "column": 8, "reference": 3,
    }  # fmt: skip
    assert result["t"].values[0] == 1.0
    assert result["t"].values[-1] == 0.0
    assert np.isinf(result["log_snr"].values[-1])
    facts = provenance(result)
    assert facts["noise_seed"] == 2**40
    assert facts["samples"] == 24
    assert facts["nfe"] == 20
    assert [m["name"] for m in facts["models"]] == list("abcd")
    assert result.attrs["interval"].startswith("95 %, two-way jackknife")
    save_result(result, tmp_path / "r.nc")
    again = load_result(tmp_path / "r.nc")
    assert again.identical(result)


def test_a_model_is_at_no_distance_from_itself(family):
    twin = DiffusionModel("twin", family[0].denoiser)
    result = compare([family[0], twin], **FEW)
    assert (result["distance"].sel(metric=["mse", "cosine"]) == 0).all()
    assert np.isinf(result["distance"].sel(metric="psnr")).all()
    assert (result["score"].sel(metric="mse") == 1).all()


def test_unrelated_noise_scores_nothing_and_the_null_is_what_other_noise_gives(family):
    result = compare(family[:2], **{**FEW, "count": 64})
    a = family[0].generate(SharedNoise(0), range(64), FEW["sampler"]).double()
    b = family[1].generate(SharedNoise(0), range(64), FEW["sampler"]).double()
    table = (a[:, None] - b[None]).pow(2).flatten(2).mean(2)
    off = table[~torch.eye(64, dtype=torch.bool)].mean()
    last = result.isel(t=-1, pair=0).sel(metric="mse")
    assert float(last["null"].mean()) == pytest.approx(float(off), rel=1e-5)
    assert np.allclose(last["distance"].values, table.diagonal().numpy(), rtol=1e-4, atol=1e-7)
    assert float(last["score"]) == pytest.approx(1 - float(table.diagonal().mean() / off), rel=1e-4)


def test_permuting_models_permutes_the_distances(family):
    order = [2, 0, 3, 1]
    first, second = compare(family, **FEW), compare([family[i] for i in order], **FEW)
    for pair in first["pair"].values:
        a, b = str(pair).split(" | ")
        other = f"{a} | {b}" if f"{a} | {b}" in second["pair"].values else f"{b} | {a}"
        assert np.allclose(first["distance"].sel(pair=pair), second["distance"].sel(pair=other), rtol=1e-5, atol=1e-12)
    assert np.allclose(first["family_score"], second["family_score"], equal_nan=True)
    assert np.allclose(first["family_score_low"], second["family_score_low"], equal_nan=True)


def test_chunks_and_counts_change_nothing(family, monkeypatch):
    whole = compare(family[:2], **FEW)
    monkeypatch.setattr("consistency_lab.diffusion.model.chunks.__defaults__", (7,))
    assert np.allclose(whole["distance"], compare(family[:2], **FEW)["distance"], atol=1e-4, rtol=1e-4)
    fewer = compare(family[:2], **{**FEW, "count": 8})
    assert np.allclose(whole["distance"].isel(sample=slice(8)), fewer["distance"], atol=1e-4, rtol=1e-4)


def test_models_on_different_schedules_meet_at_equal_log_snr():
    half = load_images("digits").split(898, 899, seed=0)[0].all()
    models = [
        DiffusionModel(name, GaussianDenoiser.fit(half, SCHEDULES.build(name)))
        for name in ("linear", "cosine", "edm", "flow")
    ]
    result = compare(models, **{**FEW, "sampler": Sampler(steps=40)})
    # The same function on four schedules, walked through the same noise levels: the same images.
    assert result["distance"].sel(metric="mse").isel(t=-1).max() < 1e-6
    # Each pair at the same noise, though never at the same time.
    met = result["pair_log_snr"].values
    assert (np.diff(met, axis=1) > 0).all()
    by_time = [m.denoiser.schedule.log_snr(0.5) for m in models]
    assert max(by_time) - min(by_time) > 1


class Shifted(Denoiser):
    """A denoiser whose x0 estimates are off by a constant."""

    def __init__(self, inner, shift):
        super().__init__()
        self.inner, self.shift, self.schedule, self.shape = inner, shift, inner.schedule, inner.shape

    def predict(self, x_t, t, alpha, sigma, cond):
        return Prediction.of(x_t, self.inner(x_t, t).x0 + self.shift, "x0", alpha, sigma)


def test_a_known_perturbation_is_measured_as_itself():
    inner = ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("linear"))
    result = compare([DiffusionModel("a", inner), DiffusionModel("b", Shifted(inner, 0.25))], **FEW)
    assert np.allclose(result["distance"].sel(metric="mse"), 0.0625, rtol=1e-4)
    # Both models give one image whatever the noise: alike under any noise, so there is nothing to score.
    assert np.allclose(result["score"].sel(metric="mse"), 0.0, atol=1e-3)
    collapsed = compare([DiffusionModel("a", inner), DiffusionModel("b", inner)], **FEW)
    assert np.isnan(collapsed["score"].sel(metric="mse")).all()


def test_references_ceiling_and_nearest_images(family, digits):
    pure = DiffusionModel("gaussian", GaussianDenoiser.fit(digits.all(), SCHEDULES.build("linear")))
    result = compare([pure, family[1]], images=digits, **FEW)
    own = result["reference_distance"].sel(model="gaussian", reference="gaussian", metric="mse")
    assert own.max() < 1e-8
    assert result["reference_score"].sel(model="gaussian", reference="gaussian", metric="mse").min() > 0.999
    assert result["reference_score"].sel(model="gaussian", reference="mean", metric="mse", t=0.0) == pytest.approx(
        0, abs=1e-6
    )
    assert 0 < result["ceiling"].sel(metric="mse").mean() < 0.05
    last = pure.generate(SharedNoise(0), range(24), FEW["sampler"])
    brute = (last[:, None] - digits.all()).pow(2).flatten(2).mean(2).amin(1)
    assert np.allclose(result["nearest_distance"].sel(model="gaussian"), brute, rtol=1e-4)


def test_exploded_models_carry_a_warning_and_others_none(family, digits, tmp_path):
    class Loud(Denoiser):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.schedule, self.shape = inner, inner.schedule, inner.shape

        def predict(self, x_t, t, alpha, sigma, cond):
            return Prediction.of(x_t, 30 * self.inner(x_t, t, cond).x0, "x0", alpha, sigma)

    assert warnings(compare(family[:2], images=digits, **FEW)) == []
    loud = [DiffusionModel(f"loud {m.name}", Loud(m.denoiser)) for m in family[:2]]
    result = compare(loud, images=digits, **FEW)
    assert float(result["family_score"].sel(metric="mse").isel(t=-1)) > 0.9  # alike, and worth nothing
    save_result(result, tmp_path / "r.nc")
    said = headline(load_result(tmp_path / "r.nc")).sentence
    assert "Warning: loud a:" in said
    assert "Warning: loud b:" in said
    assert "outside [-1.5, 1.5]" in said


def test_two_models_have_an_interval_over_noise_alone(family):
    result = compare(family[:2], **FEW)
    assert "this pair, not this family" in result.attrs["interval"]
    assert np.allclose(result["family_score"], result["score"].isel(pair=0), equal_nan=True)
    assert np.isnan(result["score"].sel(metric="psnr")).all()


def test_bad_input_is_refused(family, digits):
    other_shape = DiffusionModel("small", ConstantDenoiser(torch.zeros(1, 4, 4), SCHEDULES.build("linear")))
    nan = DiffusionModel("broken", Shifted(family[0].denoiser, float("nan")))
    low = SCHEDULES.build("edm(sigma_min=0.001, sigma_max=0.004)")
    apart = DiffusionModel("quiet", ConstantDenoiser(torch.zeros(SHAPE), low))
    loud = DiffusionModel("loud", ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("edm(sigma_min=1.0)")))
    cases = [
        ((family[:1],), {}, "at least two models"),
        (([family[0], other_shape],), {}, "cannot be given the same noise"),
        (([family[0], family[0]],), {}, "two models are called 'a'"),
        ((family[:2],), {"count": 1}, "at least 2 samples"),
        ((family[:2],), {"metrics": ["mes"]}, "Did you mean 'mse'"),
        ((family[:2],), {"metrics": ["mse", "mse"]}, "two metrics are called 'mse'"),
        (
            ([family[0], nan],),
            {},
            "'broken' gives values that are not finite at t = 1 for sample 0, and without such values 1 models",
        ),
        (([loud, apart],), {}, "share no noise level"),
        ((family[:2],), {"images": digits.take(range(10), "x").__class__("x", torch.zeros(3, 1, 4, 4))}, "images of"),
    ]
    for args, changes, message in cases:
        with pytest.raises(UserError, match=message):
            compare(*args, **{**FEW, **changes})


class OneShot:
    """A model that makes an image in one go, from a latent vector."""

    facts = {"kind": "other"}  # noqa: RUF012

    def __init__(self, name, turn, noise_shape=(5,)):
        self.name, self.noise_shape = name, noise_shape
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(64, 5, generator=generator) + turn * torch.randn(64, 5, generator=generator)

    def generate(self, noise, indices):
        return torch.tanh(noise.initial(indices, self.noise_shape) @ self.matrix.T).reshape(-1, *SHAPE)


def test_models_that_sample_in_one_go_are_compared_by_their_images(digits):
    result = compare([OneShot("a", 0.0), OneShot("b", 0.3), OneShot("c", 100.0)], images=digits, **FEW)
    assert result["t"].values.tolist() == [0.0]
    score = result["score"].isel(t=0).sel(metric="mse")
    assert score.sel(pair="a | b") > 0.5 > score.sel(pair="a | c")
    assert "ceiling" not in result
    assert "reference_distance" not in result
    assert result["nearest_distance"].shape == (3, 24)
    with pytest.raises(UserError, match="cannot be given the same noise"):
        compare([OneShot("a", 0.0), OneShot("b", 0.0, noise_shape=(6,))], **FEW)


def test_a_diffusion_model_meets_a_generator_that_is_fed_images_of_noise(family):
    class Identity(OneShot):
        def generate(self, noise, indices):
            return noise.initial(indices, SHAPE)

    result = compare([family[0], Identity("noise", 0.0, SHAPE)], **FEW)
    assert result.sizes["t"] == 1
    assert result["score"].sel(metric="mse").notnull().all()


def test_what_is_known_is_not_walked_again_and_changes_nothing(family, digits, monkeypatch):
    from consistency_lab.similarity import trajectories

    walks, original = [], trajectories._estimates
    monkeypatch.setattr(
        trajectories, "_estimates", lambda model, *rest: walks.append(model.name) or original(model, *rest)
    )
    known = trajectories.WalkCache()
    alone = compare(family[:2], images=digits, **FEW)
    walks.clear()
    first = compare(family[:2], images=digits, known=known, **FEW)
    assert len(walks) == 4 + 3  # two models with either step count, three references
    second = compare([family[1], family[2]], images=digits, known=known, **FEW)
    assert walks[7:] == [family[2].name] * 2  # the third model alone
    assert first.drop_attrs().equals(alone.drop_attrs())
    assert second.drop_attrs().equals(compare([family[1], family[2]], images=digits, **FEW).drop_attrs())


def test_the_precision_of_networks_is_recorded_and_told(digits):
    told = {"network": "mlp(width=16, depth=1)", "steps": 2, "batch": 8, "device": "cpu"}
    models = [train(digits, seed=seed, **told) for seed in (0, 1)]
    asked = {"count": 4, "levels": 2, "metrics": ["mse"]}
    full = compare(models, sampler="ddim(steps=2)", **asked)
    half = compare(models, sampler="ddim(steps=2, precision='bfloat16')", **asked)
    assert "precision" not in provenance(full)["sampler"]
    assert provenance(half)["sampler"]["precision"] == "bfloat16"
    assert not np.array_equal(full["distance"], half["distance"])
    said = [" ".join(caveats(each, provenance(each))) for each in (full, half)]
    assert ["bfloat16" in each for each in said] == [False, True]
