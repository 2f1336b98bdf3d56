"""What one sample or one model decides of a comparison is said beside its score."""

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.kinds.numbers import headline
from consistency_lab.plots.frames import overview
from consistency_lab.plots.reading import warnings
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.robust import held_by_one
from consistency_lab.similarity.statistics import family_score, pairs_of
from consistency_lab.store.results import load_result, save_result

FEW = {"count": 100, "sampler": Sampler(steps=8), "levels": 3, "shown": 2}


def gaussian(name, seed, kind=GaussianDenoiser):
    half = load_images("digits").split(898, 899, seed=seed)[0]
    return DiffusionModel(name, kind.fit(half.all(), SCHEDULES.build("linear")))


class Exploding(GaussianDenoiser):
    """Runs away on the states whose first pixel is the largest of all starts."""

    def predict(self, x_t, t, alpha, sigma, cond):
        found = super().predict(x_t, t, alpha, sigma, cond)
        far = (x_t[:, 0, 0, 0] > self.limit).reshape(-1, 1, 1, 1)
        x0 = torch.where(far, 25 * found.x0.abs(), found.x0)
        return Prediction(found.x_t, found.alpha, found.sigma, x0, found.eps)


@pytest.fixture(scope="module")
def calm():
    return [gaussian(name, seed) for seed, name in enumerate("abcd")]


@pytest.fixture(scope="module")
def exploded(calm):
    first = SharedNoise(0).initial(range(100), (1, 8, 8))[:, 0, 0, 0]
    last = gaussian("d", 3, Exploding)
    last.denoiser.limit = float(first.sort().values[-2:].mean())
    return compare([*calm[:3], last], **FEW), int(first.argmax())


def test_one_exploded_sample_is_named_with_its_share_and_the_scores_without_it(exploded, calm):
    result, sample = exploded
    last = result.isel(t=-1).sel(metric="mse")
    per_sample = last["distance"].mean("pair").values.astype(np.float64)
    assert int(last["worst_sample"]) == sample == int(per_sample.argmax())
    assert float(last["worst_share"]) == pytest.approx(per_sample.max() / per_sample.sum(), rel=1e-5)
    assert float(last["worst_share"]) > 0.5
    said = [sentence for sentence in warnings(result) if f"sample {sample} alone holds" in sentence]
    assert any("(mse)" in sentence and "10 % trimmed" in sentence for sentence in said)
    # Of typical samples the score is that of the calm family.
    plain = compare(calm, **FEW).isel(t=-1).sel(metric="mse")
    assert float(last["family_trimmed_score"]) == pytest.approx(float(plain["family_trimmed_score"]), abs=0.02)
    assert float(last["family_score"]) < float(plain["family_score"]) - 0.1
    text = headline(result, "mse").sentence
    assert "of typical samples" in text
    assert f"{float(last['family_median_score']):.3f} (median)" in text


def test_a_calm_family_is_not_warned_of(calm):
    result = compare(calm, **FEW)
    assert held_by_one(result) == []
    few = compare(calm, **{**FEW, "count": 8})  # one of eight holds an eighth of it by right
    assert held_by_one(few) == []


def test_the_odd_one_out_is_the_model_whose_removal_raises_the_score_most(exploded):
    result, _ = exploded
    last = result.isel(t=-1).sel(metric="mse")
    d, u = (last[name].transpose("pair", "sample").values.astype(np.float64) for name in ("distance", "null"))
    without = []
    for model in range(4):
        keep = [p for p, pair in enumerate(pairs_of(4)) if model not in pair]
        without.append(1 - d[keep].mean() / u[keep].mean())
    np.testing.assert_allclose(last["without_score"], without, atol=1e-6)
    assert int(last["odd"]) == int(np.argmax(without)) == 3
    whole = 1 - d.mean() / u.mean()
    assert float(last["odd_rise"]) == pytest.approx(max(without) - whole, abs=1e-6)
    assert f"without d the others score {without[3]:.3f}" in headline(result, "mse").sentence
    assert float(family_score(d, u, 4).estimate) == pytest.approx(whole, abs=1e-6)


def test_two_models_have_no_odd_one_and_psnr_no_robust_score(calm, tmp_path):
    result = compare(calm[:2], **FEW)
    assert "odd" not in result
    assert headline(result).odd == ""
    assert result["family_trimmed_score"].sel(metric="psnr").isnull().all()
    groups = overview(result, "mse").groupby("group")["name"].count()
    assert groups["robust"] == 2
    assert "robust" not in set(overview(result, "psnr")["group"])
    save_result(result, tmp_path / "r.nc")
    assert load_result(tmp_path / "r.nc").identical(result)


def test_results_of_two_samples_have_no_typical_ones(calm):
    result = compare(calm, **{**FEW, "count": 2})
    assert "family_trimmed_score" not in result
    assert headline(result).typical == ""


class Unrelated(Denoiser):
    """An orthogonal map of the state, drawn from a seed: no two models share anything, but images of a label have one size."""

    def __init__(self, seed, sizes):
        super().__init__()
        self.schedule, self.shape = SCHEDULES.build("linear"), (1, 8, 8)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mix", torch.linalg.qr(torch.randn(64, 64, generator=generator))[0])
        self.register_buffer("sizes", sizes)

    def predict(self, x_t, t, alpha, sigma, cond):
        seen = (x_t.flatten(1).to(self.mix) @ self.mix).reshape(x_t.shape)
        return Prediction.of(x_t, seen * self.sizes[cond].reshape(-1, 1, 1, 1), "x0", alpha, sigma)


@pytest.mark.parametrize("count", [40, 200])
def test_unrelated_models_score_nothing_typically_where_labels_differ_in_size(count):
    models = [DiffusionModel(f"m{k}", Unrelated(k, torch.linspace(0.1, 1, 10)), classes=10) for k in (1, 2, 3)]
    options = {"sampler": Sampler(steps=1), "ceiling": False, "metrics": ("mse",), "shown": 1, "levels": 2}
    last = compare(models, count=count, **options).isel(t=-1, metric=0)
    for name in ("family_score", "family_trimmed_score", "family_median_score"):
        assert abs(float(last[name])) < 0.12
    assert float(last["family_trimmed_score_low"]) < 0.02
    assert float(last["family_trimmed_score_high"]) > -0.02


def test_typical_scores_are_those_of_the_typical_samples_compared_alone(exploded, calm):
    result, _ = exploded
    last = result.isel(t=-1).sel(metric="mse")
    images = [m.generate(SharedNoise(0), range(100), FEW["sampler"]).double().flatten(1) for m in calm[:3]]
    distance = last["distance"].transpose("pair", "sample").values.astype(np.float64)
    table = (images[0][:, None] - images[1]).pow(2).mean(2).numpy()  # the pair a | b
    kept = np.sort(np.argsort(distance[0], kind="stable")[10:90])
    own = table[np.ix_(kept, kept)]
    null = own[~np.eye(80, dtype=bool)].mean()
    assert float(last["trimmed_score"][0]) == pytest.approx(1 - np.diag(own).mean() / null, abs=1e-5)
    others = [np.diag(np.roll(table, -s, 1)) for s in np.unique(np.linspace(1, 99, 8).round().astype(int))]
    others += [np.diag(np.roll(table, -s, 0)) for s in np.unique(np.linspace(1, 99, 8).round().astype(int))]
    expected = 1 - np.median(np.diag(table)) / np.median(np.concatenate(others))
    assert float(last["median_score"][0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [3, 9, 17])
def test_however_few_samples_explode_typical_scores_are_numbers(count):
    """Many of these run away, so that the mean of other noise lies far from any of it."""
    models = [gaussian(name, seed, Exploding) for seed, name in enumerate("ab")]
    first = SharedNoise(0).initial(range(count), (1, 8, 8))[:, 0, 0, 0].sort().values
    for model, rank in zip(models, (-2, -3), strict=True):
        model.denoiser.limit = float(first[rank])
    result = compare(models, **{**FEW, "count": count}).isel(t=-1).sel(metric="mse")
    assert np.isfinite([result["family_trimmed_score"], result["family_median_score"]]).all()
