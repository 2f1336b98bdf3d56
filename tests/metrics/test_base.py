import numpy as np
import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.metrics import base
from consistency_lab.metrics.base import Distance, SquaredDistance, as_rgb, check_images, check_range
from consistency_lab.metrics.distances import METRICS, nearest


class Plain(SquaredDistance):
    name, unit = "plain", "none"

    def embed(self, images):
        return images.flatten(1)


class Absolute(Distance):
    name, unit = "absolute", "none"

    def embed(self, images):
        return images.double().flatten(1)

    def between(self, a, b):
        return (a - b).abs().mean(1)


def embeddings(n=20, f=15, offset=0.0):
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(n, f, generator=generator, dtype=torch.float64)
    return a + offset, a + offset + 0.3 * torch.randn(n, f, generator=generator, dtype=torch.float64)


def test_squared_distances_in_rows_of_any_number(monkeypatch):
    a, b = embeddings()
    whole, null, matrix = Plain().between(a, b), Plain().null(a, b), Plain().matrix(a)
    assert torch.allclose(whole, (a - b).pow(2).sum(1))
    for elements in (1, 45, 100):
        monkeypatch.setattr(base, "_ELEMENTS", elements)
        assert torch.equal(Plain().between(a, b), whole)
        assert torch.allclose(Plain().null(a, b), null, rtol=1e-13)
        assert torch.allclose(Plain().matrix(a), matrix, rtol=1e-11)


def test_the_null_keeps_its_digits_far_from_the_origin():
    near, far = Plain().null(*embeddings()), Plain().null(*embeddings(offset=1e6))
    assert torch.allclose(near, far, rtol=1e-8)


def test_float32_embeddings_are_compared_in_float64():
    a, b = (x.float() for x in embeddings(offset=100.0))
    assert torch.equal(Plain().between(a, b), (a.double() - b.double()).pow(2).sum(1))
    assert torch.allclose(Plain().null(a, b), Plain().null(a.double(), b.double()), rtol=1e-14)


def test_the_matrix_is_every_pair():
    a, _ = embeddings(offset=1000.0)
    a[4] = a[9]  # equal embeddings elsewhere in the table
    matrix = Plain().matrix(a)
    assert torch.allclose(matrix, torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist").pow(2), atol=1e-9)
    assert torch.equal(matrix, matrix.T)
    assert (matrix.diagonal() == 0).all()
    assert (matrix >= 0).all()
    assert matrix.dtype == torch.float64


@pytest.mark.parametrize("n", [2, 3, 8, 15, 16, 17])
def test_shifts_reach_every_other_sample_where_they_are_few(n):
    a, b = embeddings(n=n)
    table = (a[:, None] - b[None]).abs().mean(2)
    expected = (table.sum(0) + table.sum(1) - 2 * table.diagonal()) / (2 * (n - 1))
    assert torch.allclose(Absolute().null(a, b), expected, atol=1e-12)


def test_shifts_of_many_samples_estimate_the_mean_over_all():
    a, b = embeddings(n=400)
    table = (a[:, None] - b[None]).abs().mean(2)
    everybody = (table.sum() - table.diagonal().sum()) / (400 * 399)
    values = Absolute().null(a, b)
    assert abs(values.mean() - everybody) < 0.005 * everybody
    assert torch.allclose(values, Absolute().null(b, a))  # both directions are in it


def test_check_images_lets_estimates_leave_the_range():
    images = 100 * torch.randn(3, 1, 4, 4)
    assert check_images(images) is images


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(4, 1, 5, 5), r"looks like \[0, 1\]"),
        (255 * torch.rand(4, 1, 5, 5), r"looks like \[0, 255\]"),
        (100 * torch.randn(400, 1, 5, 5), "no known range"),
        (torch.full((2, 1, 3, 3), torch.inf), "not finite"),
        (torch.zeros(0, 1, 3, 3), r"shape \(0, 1, 3, 3\)"),
    ],
)
def test_check_range_refuses(images, words):
    with pytest.raises(UserError, match=f"model 3.*{words}"):
        check_range(images, "the images of model 3")


def test_check_range_accepts_overshoot_and_constant_images():
    for images in (2 * torch.rand(4, 1, 5, 5) - 1, 1.4 * torch.randn(4, 3, 5, 5).tanh(), torch.ones(2, 1, 2, 2)):
        assert check_range(images) is images


def test_grey_becomes_rgb():
    grey = torch.randn(2, 1, 3, 3)
    assert all(torch.equal(as_rgb(grey)[:, c : c + 1], grey) for c in range(3))
    with pytest.raises(UserError, match="2 channels"):
        as_rgb(torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("metric", ["mse", "cosine", "psnr", "ssim(sigma=0.5)", "band"])
def test_metrics_that_are_called_directly_say_so_of_another_range(metric, scale):
    images = scale * torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=rf"looks like \[0, {scale}\]"):
        METRICS.build(metric).embed(images)
    with pytest.warns(UserWarning, match="looks like"):
        nearest(images, images)


@pytest.mark.filterwarnings("error")
def test_estimates_of_images_are_not_warned_of():
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for estimates in (images, 100 * images, torch.zeros(2, 1, 8, 8), images.clamp(-1, 1)):
        METRICS.build("mse").embed(estimates)


def test_nearest_images_are_of_one_shape():
    with pytest.raises(UserError, match="of one size"):
        nearest(torch.randn(2, 8, 8, 1), torch.randn(3, 1, 8, 8))


PAIRS = [(0, 1), (2, 0), (1, 3), (3, 2)]


@pytest.mark.parametrize(
    "metric", ["mse", "cosine", "psnr", "ssim(sigma=0.5)", "ms-ssim(scales=1, sigma=0.5)", "band(high=0.5)"]
)
@pytest.mark.parametrize("groups", [None, [np.arange(0, 9, 2), np.arange(1, 9, 2)]])
def test_pairs_together_are_pairs_one_by_one(metric, groups):
    distance = METRICS.build(metric)
    images = torch.randn(4, 9, 2, 8, 8, generator=torch.Generator().manual_seed(0)) / 3
    images[1] = images[0] + 1e-7 * images[1]  # nearly alike
    images[3, :4] = images[2, :4]  # equal
    embedded = [distance.embed(each) for each in images]
    found, null = distance.pairwise(embedded, PAIRS, groups)
    for p, (a, b) in enumerate(PAIRS):
        u, v = embedded[a], embedded[b]
        assert torch.allclose(found[p], distance.between(u, v), rtol=1e-11, atol=1e-20)
        for group in groups or [np.arange(9)]:
            rows = Distance.null(distance, u[group], v[group])  # the shifts are all others here: 8 of 4 and of 2
            if "ssim" in metric:  # of two shifts, not of all
                rows = distance.null(u[group], v[group])
            assert torch.allclose(null[p][group], rows, rtol=1e-5 if "ssim" in metric else 1e-10)  # taken in float32
    assert (found[3, :4] == (torch.inf if metric == "psnr" else 0)).all()


def test_pairs_together_do_not_depend_on_the_company(monkeypatch):
    mse = METRICS.build("mse")
    embedded = [mse.embed(x) for x in torch.randn(5, 7, 1, 4, 4, generator=torch.Generator().manual_seed(1))]
    whole = mse.pairwise(embedded, PAIRS)
    few = [mse.pairwise([embedded[a], embedded[b]], [(0, 1)]) for a, b in PAIRS]
    monkeypatch.setattr("consistency_lab.metrics.base._CACHED", 100)
    narrow = mse.pairwise(embedded, PAIRS)
    for k in range(2):
        assert torch.allclose(whole[k], torch.cat([each[k] for each in few]), rtol=1e-12)
        assert torch.allclose(whole[k], narrow[k], rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_wide_embeddings_are_taken_in_columns(monkeypatch, offset):
    a, b = embeddings(offset=offset)
    table = (a[:, None] - b[None]).pow(2).sum(2)
    others = (table.sum(0) + table.sum(1) - 2 * table.diagonal()) / 38
    for held in (1, 20 * 2 * 4, 10**6):
        monkeypatch.setattr(base, "_CACHED", held)
        assert torch.allclose(Plain().pairwise([a, b], [(0, 1)])[0][0], table.diagonal(), rtol=1e-9)
        assert torch.allclose(Plain().null(a, b), others, rtol=1e-9)
