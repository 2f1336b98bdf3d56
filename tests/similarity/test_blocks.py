"""Comparisons in blocks: which samples meet in which, that distances do not depend on it, and that intervals hold."""

import json

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import CHUNK, DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.intervals import interval_of
from consistency_lab.kinds.words import facts_of, methods
from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity import blocks as blocks_module
from consistency_lab.similarity.blocks import blocks_of, plain_over_all, samples_in_a_block, with_partners
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.statistics import MANY, family_score, pair_score, score, without_each_sample
from consistency_lab.similarity.typical import cells_of, linear_trimmed_score
from consistency_lab.store.results import load_result, provenance, save_result

SHAPE = (1, 8, 8)
FEW = {"count": 30, "sampler": Sampler(steps=2), "levels": 2, "shown": 4}


class Shown:
    """Images made in one go, which differ between models by a factor and by noise of their own."""

    facts = {}  # noqa: RUF012
    noise_shape = SHAPE

    def __init__(self, name, own=0.3, bad=()):
        self.name, self.own, self.bad = name, own, set(bad)

    def generate(self, noise, indices):
        images = torch.tanh(noise.initial(indices, SHAPE))
        images = images + self.own * SharedNoise(sum(map(ord, self.name))).initial(indices, SHAPE)
        images[[place for place, index in enumerate(indices) if index in self.bad]] = torch.nan
        return images


def gaussian(name, seed=0, schedule="linear", kind=GaussianDenoiser, classes=0):
    half = load_images("digits").split(898, 899, seed=seed)[0]
    return DiffusionModel(name, kind.fit(half.all(), SCHEDULES.build(schedule)), classes=classes)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


# Which samples meet


@pytest.mark.parametrize(
    ("count", "size"), [(10, 20), (30, 4), (31, 4), (7, 4), (1000, CHUNK), (900, 2 * CHUNK), (513, 256)]
)
def test_every_sample_is_in_one_block_and_none_is_too_small(count, size):
    found = blocks_of(count, size)
    assert np.array_equal(np.concatenate(found), np.arange(count))
    assert len(found) == 1 or min(map(len, found)) >= 4
    assert max(map(len, found)) < 2 * size
    if size % CHUNK == 0:
        assert all(block[0] % CHUNK == 0 for block in found)


@pytest.mark.parametrize("counts", [(2, 3, 40), (2,) * 30, (17, 18), (1, 9, 9)])
def test_labels_are_dealt_so_that_each_has_two_samples_in_a_block_or_none(counts):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    found = blocks_of(len(labels), 8, labels)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(labels)))
    for block in found:
        inside = np.unique(labels[block], return_counts=True)[1]
        assert inside.min() >= min(2, min(counts))
        assert np.array_equal(block, np.sort(block))
    assert max(map(len, found)) <= 16
    left = with_partners(np.arange(5), np.array([0, 1, 0, 2, 1]))
    assert left.tolist() == [0, 1, 2, 4]


def test_what_fits_is_one_block_and_what_does_not_is_not(monkeypatch):
    models, metrics = [gaussian("a"), gaussian("b", 1)], [METRICS.build("mse")]
    assert samples_in_a_block(5000, models, 14, metrics) == 5000
    monkeypatch.setattr(blocks_module, "BUDGET", 2 * 14 * 64 * 4 * 600)
    monkeypatch.setattr(blocks_module, "BLOCK", 2 * (14 * 64 * 4 + 64 * 8) * 600)
    assert samples_in_a_block(600, models, 14, metrics) == 600
    assert samples_in_a_block(5000, models, 14, metrics) == 512  # whole chunks, so that images are the same to the bit
    assert samples_in_a_block(5000, models, 14, metrics, block=30) == 30
    wide = METRICS.build("mse")
    wide.embed = lambda images: torch.zeros(len(images), 2**20)  # features that are far larger than images
    monkeypatch.setattr(blocks_module, "_SMALL", 0)
    assert samples_in_a_block(5000, models, 1, [wide]) < 600
    latent = Shown("latent")
    latent.noise_shape = (5,)  # the shape of its images is not known before they are made
    assert samples_in_a_block(10**6, [latent, latent], 1, metrics) == 10**6
    with pytest.raises(UserError, match="block"):
        samples_in_a_block(5000, models, 14, metrics, block=1)


# What is measured


@pytest.fixture(scope="module")
def family():
    return [gaussian(name, seed) for seed, name in enumerate("abc")]


@pytest.mark.parametrize("size", [7])
def test_distances_do_not_depend_on_blocks_and_nulls_are_those_of_the_block(family, digits, size):
    options = {**FEW, "images": digits, "metrics": ["mse", "ssim(sigma=0.5)"]}
    whole, parts = compare(family, **options), compare(family, block=size, **options)
    assert "block" not in whole.coords
    for name in ("distance", "ceiling", "reference_distance", "nearest_distance", "outside"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for name in ("images", "reference_images", "nearest_images", "extreme_images"):
        assert np.abs(parts[name].values - whole[name].values).max() <= 1, name
    assert parts["extreme"].equals(whole["extreme"])
    np.testing.assert_allclose(parts["spread"], whole["spread"], rtol=1e-5)
    images = torch.stack([m.generate(SharedNoise(0), range(30), FEW["sampler"]).double() for m in family])
    a, b = images[0].flatten(1), images[2].flatten(1)
    table = (a[:, None] - b[None]).pow(2).mean(2).numpy()
    block = parts["block"].values
    together = np.equal.outer(block, block) & ~np.eye(30, dtype=bool)
    null = 0.5 * ((table * together).sum(1) + (table * together).sum(0)) / together.sum(1)
    np.testing.assert_allclose(parts["null"].isel(pair=1, t=-1).sel(metric="mse"), null, rtol=1e-4)
    # Each reference that is the same for all noise scores nothing, whatever the blocks.
    assert abs(float(parts["reference_mean_score"].sel(reference="mean", metric="mse").isel(t=-1))) < 1e-9


def test_a_block_of_everything_changes_nothing(family, digits):
    whole, again = (compare(family, images=digits, block=block, **FEW) for block in (None, 30))
    assert whole.drop_attrs().equals(again.drop_attrs())


def test_whole_chunks_make_the_same_images_to_the_bit():
    models = [gaussian("a"), gaussian("b", 1)]
    options = {"count": 2 * CHUNK + 40, "sampler": Sampler(steps=2), "levels": 2, "metrics": ["mse"]}
    whole, parts = compare(models, **options), compare(models, block=CHUNK, **options)
    assert int(parts["block"].max()) == 2
    assert whole["distance"].equals(parts["distance"].drop_vars("block"))


def test_the_score_in_blocks_estimates_the_same():
    models = [Shown(name) for name in ("a", "b", "c")]
    options = {"count": 400, "metrics": ["mse", "ssim(sigma=0.5)"], "again": Shown("z", 0.2)}
    whole = compare(models, **options).isel(t=-1)
    for size in (8, 40):
        parts = compare(models, block=size, **options).isel(t=-1)
        for name in ("family_score", "family_trimmed_score", "family_median_score", "score", "ceiling_score"):
            np.testing.assert_allclose(parts[name], whole[name], atol=0.03, err_msg=f"{name} {size}")
        assert np.isfinite(interval_of(parts, "odd_rise")).all()


def test_nulls_within_labels_and_blocks(family, digits):
    models = [gaussian(name, seed, classes=3) for seed, name in enumerate("ab")]
    for model in models:
        predict = model.denoiser.predict
        model.denoiser.predict = lambda x, t, a, s, cond, own=predict: own(x, t, a, s, None)
    parts = compare(models, block=8, **FEW)
    labels, block = parts["label"].values, parts["block"].values
    images = [m.generate(SharedNoise(0), range(30), FEW["sampler"]).double().flatten(1) for m in models]
    table = (images[0][:, None] - images[1][None]).pow(2).mean(2).numpy()
    together = np.equal.outer(block, block) & np.equal.outer(labels, labels) & ~np.eye(30, dtype=bool)
    null = 0.5 * ((table * together).sum(1) + (table * together).sum(0)) / together.sum(1)
    np.testing.assert_allclose(parts["null"].isel(pair=0, t=-1).sel(metric="mse"), null, rtol=1e-4)
    assert np.isfinite(parts["plain_score"].sel(metric="mse")).all()


def test_the_plain_null_weighs_labels_as_all_samples_do():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    blocks = np.concatenate([[k % 4 for k in range(12)], np.arange(12) // 3]).astype(int)
    blocks = blocks[rng.permutation(24)]
    apart = np.where(np.equal.outer(labels, labels), 1.0, 5.0)  # distances known by label alone
    other = ~np.eye(24, dtype=bool)
    inside = np.equal.outer(blocks, blocks) & other
    plain = (apart * inside).sum(1) / inside.sum(1)
    found = plain_over_all(plain[None, None, :, None], np.ones((1, 1, 24, 1)), labels, blocks)
    np.testing.assert_allclose(found[0, 0, :, 0], (apart * other).sum(1) / 23)


def test_lost_samples_and_models_are_left_out_of_every_block():
    models = [Shown("a"), Shown("b", bad=[3, 17]), Shown("c", bad=range(20))]
    whole, parts = (compare(models, count=30, block=block, metrics=["mse"]) for block in (None, 6))
    assert parts["sample"].values.tolist() == [i for i in range(30) if i not in (3, 17)]
    assert parts["model"].values.tolist() == ["a", "b"]
    np.testing.assert_allclose(parts["distance"], whole["distance"], rtol=1e-6)
    assert json.loads(parts.attrs["warnings"])[0] == json.loads(whole.attrs["warnings"])[0]
    assert provenance(parts)["not_finite"] == provenance(whole)["not_finite"]
    # A sample that is left alone has no null, and is left out with a word.
    alone = compare([Shown("a"), Shown("b", bad=[0, 1, 2])], count=12, block=4, metrics=["mse"])
    assert alone["sample"].values.tolist() == list(range(4, 12))
    assert "1 more samples are left out" in json.loads(alone.attrs["warnings"])[0]


def test_a_result_in_blocks_says_so_and_is_saved(tmp_path):
    result = compare([Shown("a"), Shown("b")], count=100, block=5)
    assert provenance(result)["blocks"] == 20
    assert "delete-a-block" in result.attrs["interval"]
    assert "delete-one-sample" in compare([Shown("a"), Shown("b")], count=95, block=5).attrs["interval"]
    save_result(result, tmp_path / "r.nc")
    assert load_result(tmp_path / "r.nc").identical(result)
    assert any("the other samples of its block" in sentence for sentence in methods(result, facts_of(result)))


def test_large_images_are_shown_as_thumbnails():
    class Large(Shown):
        noise_shape = (1, 200, 100)

        def generate(self, noise, indices):
            images = torch.zeros(len(indices), 1, 200, 100)
            images[:, :, :100] = torch.tensor([0.1 * index - 1 for index in indices]).reshape(-1, 1, 1, 1)
            return images

    result = compare([Large("a"), Large("b")], count=6, metrics=["mse"])
    assert result["images"].shape == (2, 6, 1, 1, 128, 64)
    np.testing.assert_allclose(result["images"].values[0, :, 0, 0, 10, 10], 0.1 * np.arange(6) * 127.5, atol=1)
    assert result["extreme_images"].shape[-2:] == (128, 64)


def test_a_second_run_of_the_first_model_is_the_ceiling():
    first, second, own = Shown("a", 0.1), Shown("b", 0.8), Shown("z", 0.2)
    for block in (None, 6):
        result = compare([first, second], count=24, again=own, block=block, metrics=["mse", "psnr"])
        alone = compare([first, own], count=24, block=block, metrics=["mse", "psnr"])
        np.testing.assert_array_equal(result["ceiling"].sel(model="a"), alone["distance"].isel(pair=0, t=0))
        np.testing.assert_allclose(interval_of(result, "ceiling_score"), interval_of(alone.isel(pair=0, t=0), "score"))
        assert result["ceiling"].sel(model="b").isnull().all()
        assert provenance(result)["again"]["name"] == "z"
    with pytest.raises(UserError, match="for models that make an image in one go"):
        compare([gaussian("x"), gaussian("y", 1)], again=gaussian("z", 2), count=4)


# What is said of it


def vectors(rng, samples, dims=6, common=1.0):
    shared = rng.normal(size=(samples, dims))
    return [common * shared + 0.7 * rng.normal(size=(samples, dims)) for _ in range(2)]


def measured(a, b, blocks):
    """Distances and nulls within blocks ``(N,)``."""
    table = ((a[:, None] - b[None]) ** 2).mean(2)
    inside = np.equal.outer(blocks, blocks) & ~np.eye(len(a), dtype=bool)
    with np.errstate(invalid="ignore"):  # one that is left alone has no null
        return np.diag(table).copy(), 0.5 * ((table * inside).sum(1) + (table * inside).sum(0)) / inside.sum(1)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_leaving_out_a_sample_is_computing_again_without_it(size):
    count = 12 if size == 2 else 15
    a, b = vectors(np.random.default_rng(size), count)
    blocks = np.arange(count) // size
    d, u = measured(a, b, blocks)
    left_d, left_u = without_each_sample(d[None], u[None], blocks)
    for i in range(count):
        keep = np.arange(count) != i
        rest_d, rest_u = measured(a[keep], b[keep], blocks[keep])
        assert left_d[0, i] == pytest.approx(rest_d.mean())
        assert left_u[0, i] == pytest.approx(rest_u[np.isfinite(rest_u)].mean())


def test_with_many_blocks_each_block_is_left_out_in_turn():
    a, b = vectors(np.random.default_rng(0), 4 * MANY + 3)
    blocks = np.minimum(np.arange(len(a)) // 4, MANY - 1)
    d, u = measured(a, b, blocks)
    left = without_each_sample(d[None], u[None], blocks)
    assert left[0].shape == (1, MANY)
    for block in range(MANY):
        keep = blocks != block
        assert left[0][0, block] == pytest.approx(d[keep].mean())
        assert left[1][0, block] == pytest.approx(u[keep].mean())


def test_the_order_of_samples_does_not_matter():
    rng = np.random.default_rng(1)
    for size in (4, 2):  # delete-one and delete-a-block
        a, b = vectors(rng, 60)
        blocks = np.arange(60) // size
        d, u = measured(a, b, blocks)
        order = rng.permutation(60)
        np.testing.assert_allclose(
            pair_score(d, u, blocks=blocks), pair_score(d[order], u[order], blocks=blocks[order])
        )
        np.testing.assert_allclose(
            linear_trimmed_score(d[None], u[None], 2, None, blocks),
            linear_trimmed_score(d[None, order], u[None, order], 2, None, blocks[order]),
        )


def test_cells_are_of_one_label_and_one_block():
    labels, blocks = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    assert cells_of(None, None) is None
    assert cells_of(labels, None) is labels
    assert cells_of(None, blocks) is blocks
    found = cells_of(labels, blocks)
    assert found[2] == found[3]
    assert len(set(found[[0, 1, 2]])) == 3


def coverage(size, samples, trials, dims, models=2):
    """The share of intervals of a pair's score, and of typical samples, that hold the true score."""
    rng, hits = np.random.default_rng([size, samples, dims]), []
    blocks = np.arange(samples) // size
    truth = 1 - 2 * 0.49 / (2 * 1.49)
    inside = np.equal.outer(np.arange(size), np.arange(size))
    for _ in range(trials):
        a, b = (x.reshape(-1, size, dims) for x in vectors(rng, samples, dims))
        table = ((a[:, :, None] - b[:, None]) ** 2).mean(3)
        d = np.einsum("bii->bi", table).reshape(-1)
        off = np.where(inside, 0.0, table)
        u = (0.5 * (off.sum(1) + off.sum(2)) / (size - 1)).reshape(-1)
        found = pair_score(d, u, blocks=blocks if samples > size else None)
        hits.append([found.low <= truth <= found.high, found.estimate])
    return np.mean([hit for hit, _ in hits]), np.mean([estimate for _, estimate in hits]) - truth


@pytest.mark.parametrize(("size", "samples"), [(4, 32), (4, 256), (16, 64), (16, 512)])
@pytest.mark.parametrize("dims", [2, 20])
def test_the_interval_of_a_score_in_blocks_covers(size, samples, dims):
    share, bias = coverage(size, samples, 300, dims)
    assert 0.92 <= share <= 0.985
    assert abs(bias) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 16, 256])
@pytest.mark.parametrize("blocks", [3, 10, 19, 20, 60])
def test_the_interval_of_a_score_in_blocks_covers_whatever_their_number(size, blocks):
    share, bias = coverage(size, size * blocks, 1000 if size < 256 else 150, 6)
    assert 0.91 <= share <= 0.985
    assert abs(bias) < 0.01


@pytest.mark.parametrize("size", [4, 16])
def test_the_interval_of_a_family_in_blocks_covers_other_models_and_other_noise(size):
    rng, hits = np.random.default_rng(size), []
    blocks = np.arange(320) // size
    for _ in range(150):
        shared = rng.normal(size=(320, 8))
        made = [shared + 0.7 * rng.normal(size=(320, 8)) for _ in range(4)]
        rows = [measured_fast(made[i], made[j], size) for i in range(4) for j in range(i + 1, 4)]
        d, u = (np.stack(part) for part in zip(*rows, strict=True))
        found = family_score(d, u, 4, blocks)
        hits.append(found.low <= 1 - 0.49 / 1.49 <= found.high)
        assert score(d.mean(), u.mean()) == pytest.approx(found.estimate)
    assert np.mean(hits) >= 0.92


def measured_fast(a, b, size):
    u, v = (x.reshape(-1, size, x.shape[1]) for x in (a, b))
    table = ((u[:, :, None] - v[:, None]) ** 2).mean(3)
    d = np.einsum("bii->bi", table)
    return d.reshape(-1), (0.5 * (table.sum(1) + table.sum(2) - 2 * d) / (size - 1)).reshape(-1)


class Faulty(GaussianDenoiser):
    def predict(self, x_t, t, alpha, sigma, cond):
        found = super().predict(x_t, t, alpha, sigma, cond)
        bad = (x_t[:, 0, 0, 0] > self.limit).reshape(-1, 1, 1, 1)
        return Prediction(found.x_t, found.alpha, found.sigma, torch.where(bad, torch.nan, found.x0), found.eps)


def test_samples_lost_by_a_diffusion_model_are_lost_in_blocks_too(digits):
    models = [gaussian("a"), gaussian("b", 1), gaussian("c", 2, kind=Faulty)]
    first = SharedNoise(0).initial(range(30), SHAPE)[:, 0, 0, 0]
    models[2].denoiser.limit = float(first.sort().values[-2:].mean())
    whole, parts = (compare(models, images=digits, block=block, **FEW) for block in (None, 10))
    assert parts["sample"].values.tolist() == whole["sample"].values.tolist()
    for name in ("distance", "reference_distance", "ceiling", "nearest_distance"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-5)
