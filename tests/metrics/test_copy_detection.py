import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import transforms

from consistency_lab.errors import UserError
from consistency_lab.metrics.copy_detection import (
    THRESHOLDS,
    CopyDistance,
    generalisation,
    most_similar,
    prepare,
    reproducibility,
    sscd,
)
from consistency_lab.metrics.distances import METRICS
from consistency_lab.trust import trusting


class Tiny(nn.Module):
    """An embedding with outputs of unit norm, as SSCD's."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.body(images), dim=1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tiny()
    file = tmp_path_factory.mktemp("scripts") / "sscd_tiny.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export is to be used instead; SSCD is published in this form
        torch.jit.script(network).save(str(file))
    return file, network


def two(n=9, shape=(3, 16, 16)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.3 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


def test_a_script_gives_one_minus_its_cosines(script):
    file, network = script
    a, b = two()
    text = f"sscd(path={str(file)!r}, size=32)"
    with pytest.raises(UserError, match="a program that may read and write"):
        METRICS.build(text)
    with pytest.raises(UserError, match=r"unknown option .* 'trust'"):  # a text may come with the file
        METRICS.build(f"{text[:-1]}, trust=True)")
    with trusting():
        distance = METRICS.build(text)
    with torch.no_grad():
        expected = (network(prepare(a, 32, True)) * network(prepare(b, 32, True))).sum(1)
    u, v = distance.embed(a), distance.embed(b)
    assert torch.allclose(distance.between(u, v).float(), 1 - expected, atol=1e-6)
    assert torch.allclose(distance.similarity(a, b).float(), expected, atol=1e-6)
    cosines = 2 * u @ v.T
    others = (cosines.sum(0) + cosines.sum(1) - 2 * cosines.diagonal()) / (2 * (len(a) - 1))
    assert torch.allclose(distance.null(u, v), 1 - others, atol=1e-12)


def test_batches_change_nothing(script):
    a, _ = two(n=70)  # more than pass at a time
    distance = sscd(path=script[0], size=24, trust=True)
    assert torch.allclose(distance.embed(a), torch.cat([distance.embed(x[None]) for x in a]), atol=1e-6)


def test_only_sscds_files_are_called_sscd(script, tmp_path):
    assert sscd(path=script[0], trust=True).name == "sscd_tiny"
    assert "320x320" in sscd(path=script[0], trust=True).note
    other = tmp_path / "mine.pt"
    other.write_bytes(script[0].read_bytes())
    assert sscd(path=other, square=False, size=288, trust=True).name == "copies-mine"
    assert "shorter side of 288" in sscd(path=other, square=False, size=288, trust=True).note


def test_preparation_equals_torchvisions():
    images = (two(n=2, shape=(3, 20, 30))[0] + 1) / 2
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for square, size in ((True, 12), (True, 48), (False, 10)):
        expected = normalise(transforms.Resize((size, size) if square else size, antialias=True)(images))
        assert torch.allclose(prepare(2 * images - 1, size, square), expected, atol=1e-5)
    assert prepare(torch.zeros(2, 1, 8, 8), 16, True).shape == (2, 3, 16, 16)


def test_any_callable_is_an_embedding():
    a, b = two()
    distance = CopyDistance(lambda images: 7.0 * images.flatten(1), "pixels")
    expected = F.cosine_similarity(a.double().flatten(1), b.double().flatten(1))
    assert torch.allclose(distance.similarity(a, b), expected, atol=1e-6)
    assert torch.equal(distance.embed(3 * a), distance.embed((3 * a).clamp(-1, 1)))


def test_an_image_is_a_copy_of_itself():
    a, _ = two()
    similarities = CopyDistance(lambda images: images.flatten(1), "pixels").similarity(a, a)
    assert (similarities == 1).all()
    assert (reproducibility(similarities).estimate == 1).all()


@pytest.mark.parametrize(
    "features",
    [lambda images: images, lambda images: images.flatten(1)[:1], lambda images: images.flatten(1) * torch.nan],
    ids=["no matrix", "too few", "not finite"],
)
def test_features_that_are_none_are_refused(features):
    with pytest.raises(UserError, match=r"finite and of shape \(9, F\)"):
        CopyDistance(features, "broken").embed(two()[0])


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        sscd(path=tmp_path / "none.pt")
    weights = tmp_path / "weights.pt"
    torch.save(Tiny().state_dict(), weights)
    with pytest.raises(UserError, match="not TorchScript"):
        sscd(path=weights, trust=True)
    with pytest.raises(UserError, match="at least 1 pixel"):
        sscd(path=weights, size=0)
    with pytest.raises(UserError, match="needs path"):
        METRICS.build("sscd")


def test_shares_by_threshold():
    similarities = torch.tensor([0.1, 0.55, 0.6, 0.61, 0.95], dtype=torch.float64)
    rp, gl = (share(similarities, (0.0, 0.6, 0.9, 1.0)) for share in (reproducibility, generalisation))
    assert np.allclose(rp.estimate, [1.0, 0.4, 0.2, 0.0])
    assert np.allclose(gl.estimate, 1 - rp.estimate)
    assert np.allclose(gl.low, 1 - rp.high)
    assert ((rp.low <= rp.estimate + 1e-12) & (rp.estimate <= rp.high + 1e-12)).all()
    assert 0.6 in THRESHOLDS
    assert reproducibility(similarities).estimate.shape == (len(THRESHOLDS),)


def test_the_wilson_interval_is_wilsons():
    interval = reproducibility(torch.cat([torch.ones(30), torch.zeros(70)]), (0.5,))
    z, p, n = 1.959964, 0.3, 100
    middle, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5,
    )
    assert interval.low[0] == pytest.approx(middle - half, abs=1e-6)
    assert interval.high[0] == pytest.approx(middle + half, abs=1e-6)


@pytest.mark.parametrize("bad", [torch.empty(0), torch.tensor([0.5, torch.nan])])
def test_shares_of_nothing_are_refused(bad):
    for share in (reproducibility, generalisation):
        with pytest.raises(UserError, match="one finite similarity"):
            share(bad)


def test_most_similar_equals_brute_force_in_any_chunks():
    distance = CopyDistance(lambda images: images.flatten(1), "pixels")
    a, b = two(n=30)
    samples, training = distance.embed(a[:12]), distance.embed(b)
    table = F.cosine_similarity(a[:12, None].double().flatten(2), b[None].double().flatten(2), dim=2)
    for chunk in (4, 7, 1000):
        cosines, index = most_similar(samples, training, chunk)
        assert torch.allclose(cosines, table.amax(1), atol=1e-6)
        assert torch.equal(index, table.argmax(1))
    assert most_similar(training, training)[0].max() <= 1


def test_a_memoriser_generalises_to_nothing():
    distance = CopyDistance(lambda images: images.flatten(1), "pixels")
    training = distance.embed(two(n=30)[0])
    assert generalisation(most_similar(training[:10], training)[0], (0.6, 0.9)).estimate.tolist() == [0.0, 0.0]


def test_features_without_a_direction_are_refused():
    with pytest.raises(UserError, match="all 0 for image 2, and have no direction"):
        CopyDistance(lambda images: images.flatten(1) * (torch.arange(9) != 2)[:, None], "broken").embed(two()[0])
