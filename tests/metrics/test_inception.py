import hashlib
import sys

import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.metrics import inception
from consistency_lab.metrics.inception import InceptionFeatures


def test_without_the_package_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    with pytest.raises(UserError, match=r"FID needs the package torch-fidelity.*or measure with the set's classifier"):
        InceptionFeatures()


class Extractor(torch.nn.Module):
    """Stands in for torch-fidelity's where that is not installed: the same constructor and call."""

    def __init__(self, name, features_list, feature_extractor_weights_path):
        super().__init__()
        assert features_list == ["2048"]
        self.name = name

    def forward(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 4, 4)
        return (images.float().flatten(1),)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file that passes for the published one, in a torch cache of this test's own, and an extractor that reads none."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch_fidelity", sys)
    module = type(sys)("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, module.__name__, module)
    file = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.zeros(3)}, file)
    name = f"weights-inception-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(inception, "_FILE", name)
    return file


def test_images_become_rgb_bytes(weights, monkeypatch):
    monkeypatch.setattr(inception, "_ROWS", 2)
    images = torch.linspace(-1.2, 1.2, 3 * 16).view(3, 1, 4, 4)
    features = InceptionFeatures(weights).features(images)
    expected = ((images.clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1).flatten(1)
    assert torch.equal(features, expected)
    assert features.min() == 0
    assert features.max() == 255


def test_weights_are_never_downloaded(weights, tmp_path):
    with pytest.raises(
        UserError, match=r"no file .*checkpoints.*weights-inception.*or measure with the set's classifier"
    ):
        InceptionFeatures()
    with pytest.raises(UserError, match="no file"):
        InceptionFeatures(tmp_path / "none.pth")


def test_other_weights_make_no_fid(weights, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"fc.bias": torch.ones(3)}, other)
    with pytest.raises(UserError, match="no FID can be computed with it"):
        InceptionFeatures(other)


def test_a_file_that_would_run_code_is_refused(weights, tmp_path, monkeypatch):
    torch.save(torch.nn.Linear(2, 2), weights)
    name = f"weights-inception-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(inception, "_FILE", name)
    with pytest.raises(UserError, match="holds more than weights"):
        InceptionFeatures(weights)


@pytest.mark.slow  # 24 million parameters at 299x299
def test_the_real_extractor_takes_what_we_give_it(tmp_path, monkeypatch):
    extractors = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng(), monkeypatch.context() as patched:
        torch.manual_seed(0)
        patched.setattr(extractors, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        network = extractors.FeatureExtractorInceptionV3("random", ["2048"])
    file = tmp_path / "random.pth"
    torch.save(network.state_dict(), file)
    name = f"weights-inception-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(inception, "_FILE", name)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    features = InceptionFeatures(file).features(images)
    assert features.shape == (2, 2048)
    assert torch.allclose(InceptionFeatures(file).features(images.flip(0)).flip(0), features, atol=1e-4)
