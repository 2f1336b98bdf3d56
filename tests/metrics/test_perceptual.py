import shutil
import sys
import warnings
from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
import torchvision

from consistency_lab.errors import UserError
from consistency_lab.metrics import perceptual
from consistency_lab.metrics.distances import METRICS
from consistency_lab.metrics.perceptual import FeatureDistance, lpips_distance, random_network

ROUNDED = "squeezenet1_1_fp16rounded.pth"
PUBLISHED = "squeezenet1_1-b8a52dc0.pth"


def two(n=5, shape=(3, 40, 40)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.4 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


@pytest.fixture
def squeeze():
    return FeatureDistance(random_network("squeeze"), "squeeze", "random-features-squeeze", "a random trunk")


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """A torch cache of this test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def random_weights(path):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    return path


def packages_own(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(verbose=False, **options)


def value(distance, a, b):
    return distance.between(distance.embed(a), distance.embed(b))


@pytest.mark.parametrize("trunk", ["squeeze", "alex"])
def test_random_trunks_give_what_the_package_gives(trunk):
    network = random_network(trunk)
    distance = FeatureDistance(network, trunk, f"random-features-{trunk}", "a random trunk")
    a, b = two()
    with torch.no_grad():
        expected = network(a, b).flatten()
        table = torch.stack([network(x.expand_as(b), b).flatten() for x in a])
    assert torch.allclose(value(distance, a, b).float(), expected, atol=1e-5)
    others = (table.sum(0) + table.sum(1) - 2 * table.diagonal()) / (2 * (len(a) - 1))
    assert torch.allclose(distance.null(distance.embed(a), distance.embed(b)).float(), others, atol=1e-5)
    assert expected.min() > 1e-3


@pytest.mark.slow  # 140 million parameters
def test_a_random_vgg_gives_what_the_package_gives():
    network = random_network("vgg")
    a, b = two()
    distance = FeatureDistance(network, "vgg", "random-features-vgg", "a random trunk")
    with torch.no_grad():
        assert torch.allclose(value(distance, a, b).float(), network(a, b).flatten(), atol=1e-5)


def test_the_published_file_gives_what_the_package_gives(assets, torch_home):
    # The package reads a cached trunk without a look at its hash, so both can be given the rounded weights here.
    shutil.copy(assets / "weights" / ROUNDED, torch_home / PUBLISHED)
    theirs = packages_own(net="squeeze")
    ours = lpips_distance("squeeze", weights=assets / "weights" / ROUNDED)
    assert ours.name == "lpips-squeeze-rounded"
    with np.load(assets / "cifar10" / "test.npz") as file:
        images = torch.from_numpy(file["images"][:12]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = theirs(images[:6], images[6:]).flatten()
    assert torch.allclose(value(ours, images[:6], images[6:]).float(), expected, atol=1e-5)
    matrix = ours.matrix(ours.embed(images))
    assert (matrix.diagonal() == 0).all()
    assert torch.allclose(matrix[range(6), range(6, 12)].float(), expected, atol=1e-5)


def test_k_models_cost_k_passes(squeeze):
    passed = []
    squeeze.network.net.register_forward_hook(lambda module, images, output: passed.append(len(images[0])))
    models = [two(n=3)[0] + 0.01 * k for k in range(4)]
    embedded = [squeeze.embed(images) for images in models]
    for i in range(4):
        for j in range(i):
            squeeze.between(embedded[i], embedded[j])
            squeeze.null(embedded[i], embedded[j])
    assert sum(passed) == 4 * 3


def test_chunks_change_nothing(squeeze, monkeypatch):
    a, b = two()
    whole = value(squeeze, a, b)
    monkeypatch.setattr(perceptual, "_PIXELS", 2 * 40 * 40)
    assert torch.allclose(value(squeeze, a, b), whole, rtol=1e-4, atol=1e-7)


def test_estimates_are_clamped_and_grey_is_made_rgb(squeeze):
    a, _ = two(shape=(1, 40, 40))
    assert torch.equal(squeeze.embed(3 * a), squeeze.embed((3 * a).clamp(-1, 1)))
    assert torch.equal(squeeze.embed(a), squeeze.embed(a.expand(-1, 3, -1, -1)))
    with pytest.raises(UserError, match="2 channels"):
        squeeze.embed(torch.zeros(1, 2, 40, 40))


@pytest.mark.parametrize(("trunk", "least"), [("squeeze", 17), ("alex", 31)])
def test_small_images_are_enlarged_to_the_least_side(trunk, least):
    network, seen = random_network(trunk), []
    network.net.register_forward_hook(lambda module, images, output: seen.append(tuple(images[0].shape[-2:])))
    distance = FeatureDistance(network, trunk, f"random-features-{trunk}", "a random trunk")
    for shape in ((8, 8), (8, 16), (least, least), (least, 50)):
        distance.embed(torch.zeros(1, 1, *shape))
    assert seen == [(least, least), (least, 2 * least), (least, least), (least, 50)]
    assert f"enlarged to {least}" in distance.note
    with pytest.raises(RuntimeError):  # it is the least: the trunk itself has no output below it
        outputs = network.net(torch.zeros(1, 3, least - 1, least - 1))
        raise RuntimeError if any(x.numel() == 0 for x in outputs) else AssertionError


def test_names_tell_which_weights(torch_home, tmp_path, monkeypatch):
    file = random_weights(tmp_path / "mine.pth")
    assert lpips_distance("squeeze", weights=file).name == "lpips-squeeze-unverified"
    assert lpips_distance("squeeze", weights=file, rounded=True).name == "lpips-squeeze-rounded"
    rounded = shutil.copy(file, tmp_path / "mine_rounded.pth")
    assert METRICS.build(f"lpips-squeeze(weights={str(rounded)!r})").name == "lpips-squeeze-rounded"
    cached = shutil.copy(file, torch_home / PUBLISHED)
    assert METRICS.build("lpips-squeeze").name == "lpips-squeeze-unverified"  # the name of the file proves nothing
    digest = SimpleNamespace(hexdigest=lambda: "b8a52dc0" + 56 * "0")
    monkeypatch.setattr(perceptual.hashlib, "sha256", lambda data: digest)
    distance = lpips_distance("squeeze", weights=cached)
    assert distance.name == "lpips-squeeze"
    assert PUBLISHED in distance.note
    assert str(tmp_path) not in distance.note + distance.unit


def test_weights_from_a_file_are_the_files(tmp_path):
    file = random_weights(tmp_path / "mine.pth")
    features = torch.load(file, weights_only=True)
    loaded = lpips_distance("squeeze", weights=file).network.net.state_dict()
    assert len(loaded) == sum(key.startswith("features.") for key in features)
    assert torch.equal(loaded["slice3.6.expand3x3.weight"], features["features.6.expand3x3.weight"])


def test_nothing_is_downloaded(torch_home, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    for name, file in (
        ("alex", "alexnet-owt-7be5be79"),
        ("vgg", "vgg16-397923af"),
        ("squeeze", "squeezenet1_1-b8a52dc0"),
    ):
        with pytest.raises(UserError, match=rf"{file}.pth there or write lpips-{name}\(weights=.*other metrics work"):
            METRICS.build(f"lpips-{name}")
    assert list(torch_home.iterdir()) == []


def test_the_published_names_are_torchvisions():
    models = torchvision.models
    enums = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    for trunk, (_, file) in perceptual._TRUNKS.items():
        assert enums[trunk].IMAGENET1K_V1.url.rpartition("/")[2] == file


def test_bad_files_are_refused(tmp_path):
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"no weights")
    with pytest.raises(UserError, match="truncated or holds no weights"):
        lpips_distance("squeeze", weights=junk)
    whole = random_weights(tmp_path / "whole.pth")
    junk.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated or holds no weights"):
        lpips_distance("squeeze", weights=junk)
    with pytest.raises(
        UserError, match=r"trunk for lpips-alex: features\.0\.weight of shape \(64, 3, 11, 11\) is missing"
    ):
        lpips_distance("alex", weights=whole)
    torch.save([1, 2], junk)
    with pytest.raises(UserError, match="no weights of torchvision's trunk"):
        lpips_distance("squeeze", weights=junk)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError, match="pip install lpips torchvision"):
        random_network("squeeze")


def test_a_torchvision_of_another_torch_is_one_sentence(monkeypatch):
    def fails(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(perceptual, "import_module", fails)
    with pytest.raises(UserError, match=rf"torchvision {torchvision.__version__.split('+')[0]}.*torch and torchvision"):
        random_network("squeeze")


def test_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    random_network("squeeze")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_embedding_is_filled_part_by_part(squeeze, monkeypatch):
    images, _ = two()
    whole = squeeze.embed(images)
    for pixels in (1, 2 * 40 * 40, 4 * 40 * 40):
        monkeypatch.setattr(perceptual, "_PIXELS", pixels)
        assert torch.allclose(squeeze.embed(images), whole, atol=1e-6)
