"""What every distance of the registry must do."""

import pytest
import torch
from registered import entries

from consistency_lab.errors import UserError
from consistency_lab.metrics.bands import principal_components
from consistency_lab.metrics.base import Distance
from consistency_lab.metrics.copy_detection import CopyDistance
from consistency_lab.metrics.distances import METRICS
from consistency_lab.metrics.perceptual import FeatureDistance, random_network

NEED_WEIGHTS = {"lpips-alex", "lpips-vgg", "lpips-squeeze", "sscd"}
VARIANTS = ["ssim(sigma=0.8)", "ms-ssim(scales=2, sigma=0.8)", "band", "band(low=0.25, high=1.0)"]
BUILT = entries(METRICS, VARIANTS, NEED_WEIGHTS)
OTHERS = ["random-features-squeeze", "components", "copies"]


def two(n=12, shape=(1, 14, 14), seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.3 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


def build(name) -> Distance:
    if name == "random-features-squeeze":
        return FeatureDistance(random_network("squeeze"), "squeeze", name, "a random trunk")
    if name == "components":
        return principal_components(two(n=40)[0], (3, 20))[1]
    if name == "copies":
        return CopyDistance(lambda images: images.flatten(1)[:, :30] + 0.5, "copies")
    return METRICS.build(name)


@pytest.fixture(scope="module")
def distance(request):
    return build(request.param)


every_distance = pytest.mark.parametrize("distance", BUILT + OTHERS, indirect=True)


@every_distance
def test_the_null_is_the_mean_over_other_noise(distance):
    a, b = two(n=5)  # so few that every null is over all other samples
    u, v = distance.embed(a), distance.embed(b)
    n = len(a)
    table = torch.stack([distance.between(u[i : i + 1].expand_as(u), v) for i in range(n)])
    expected = torch.stack([(table[i].sum() + table[:, i].sum() - 2 * table[i, i]) / (2 * (n - 1)) for i in range(n)])
    rounding = 1e-5 if "ssim" in distance.name else 1e-10  # SSIM is computed in float32
    assert torch.allclose(distance.null(u, v), expected, atol=rounding)


@every_distance
def test_it_is_symmetric_and_knows_equality(distance):
    a, b = two()
    u, v = distance.embed(a), distance.embed(b)
    assert torch.allclose(
        distance.between(u, v), distance.between(v, u), atol=1e-5 if "ssim" in distance.name else 1e-12
    )
    assert torch.allclose(distance.null(u, v), distance.null(v, u), atol=1e-6)
    same = distance.between(u, distance.embed(a))
    assert (same == (torch.inf if distance.better == "higher" else 0.0)).all()
    assert distance.between(u, v).dtype == distance.null(u, v).dtype == torch.float64
    assert (distance.between(u, v) > 0).all()


@every_distance
def test_batches_and_order_change_nothing(distance):
    a, b = two()
    whole = distance.between(distance.embed(a), distance.embed(b))
    single = [distance.between(distance.embed(x[None]), distance.embed(y[None])) for x, y in zip(a, b, strict=True)]
    order = torch.tensor([3, 0, 11, 5, 1, 2, 4, 6, 7, 8, 9, 10])
    moved = distance.between(distance.embed(a[order]), distance.embed(b[order]))
    assert torch.allclose(torch.cat(single), whole, rtol=1e-5, atol=1e-7)
    assert torch.allclose(moved, whole[order], rtol=1e-5, atol=1e-7)


@every_distance
def test_images_are_left_as_they_were(distance):
    a, _ = two()
    before = a.clone()
    distance.embed(3 * a)
    distance.embed(a)
    assert torch.equal(a, before)


@every_distance
def test_it_says_what_it_is(distance):
    assert distance.name
    assert distance.unit
    assert distance.better in ("lower", "higher")
    assert distance.scored == (distance.better == "lower")  # 1 - distance / null says something of distances alone


@every_distance
def test_bad_images_are_refused(distance):
    a, _ = two()
    a[7, 0, 2, 3] = torch.nan
    with pytest.raises(UserError, match=r"not finite.* 7"):
        distance.embed(a)
    with pytest.raises(UserError, match=r"uint8 of shape \(2, 1, 14, 14\)"):
        distance.embed(torch.zeros(2, 1, 14, 14, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        distance.embed(torch.zeros(14, 14))


@every_distance
def test_one_sample_has_no_null(distance):
    a, _ = two(n=1)
    with pytest.raises(UserError, match="at least 2 samples"):
        distance.null(distance.embed(a), distance.embed(a))


@every_distance
def test_two_samples_have_a_null(distance):
    a, b = two(n=2)
    u, v = distance.embed(a), distance.embed(b)
    expected = 0.5 * (distance.between(u, v.flip(0)) + distance.between(u.flip(0), v))
    assert torch.allclose(distance.null(u, v), expected, atol=1e-5 if "ssim" in distance.name else 1e-10)


@every_distance
def test_constant_images_are_no_error(distance):
    grey, white = torch.zeros(4, 1, 14, 14), torch.ones(4, 1, 14, 14)
    u, v = distance.embed(grey), distance.embed(white)
    assert not distance.between(u, v).isnan().any()
    assert not distance.null(u, u).isnan().any()
