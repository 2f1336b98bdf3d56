import sys

import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.metrics.dino import DinoFeatures

HUB = """
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x.mean((2, 3)) * self.weight

def dinov2_vits14(**kwargs):
    network = Tiny()
    network.load_state_dict(torch.load(torch.hub.get_dir() + "/checkpoints/dinov2_vits14_pretrain.pth"))
    return network
"""


class Extractor(torch.nn.Module):
    """Stands in for torch-fidelity's where that is not installed: the same constructor, call and way to its network."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert (name, features_list, feature_extractor_weights_path) == ("dinov2-vit-s-14", ["dinov2"], None)
        checkout = f"{torch.hub.get_dir()}/facebookresearch_dinov2_main"
        self.model = torch.hub.load(checkout, "dinov2_vits14", source="local")

    def forward(self, images):
        assert images.dtype == torch.uint8
        return (self.model(images.float()),)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A hub folder of this test's own, with a network of three numbers, and an extractor."""
    module = type(sys)("torch_fidelity.feature_extractor_dinov2")
    module.FeatureExtractorDinoV2 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", sys)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("facebookresearch_dinov2_main", "checkpoints"):
        (tmp_path / name).mkdir()
    (tmp_path / "facebookresearch_dinov2_main" / "hubconf.py").write_text(HUB)
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "checkpoints" / "dinov2_vits14_pretrain.pth")
    return tmp_path


def test_images_become_rgb_bytes_and_the_hub_folder_stays(folder, monkeypatch):
    with pytest.raises(UserError, match="a checkout of DINOv2's repository, a program that may"):
        DinoFeatures(folder)
    extractor = DinoFeatures(folder, trust=True)
    images = torch.linspace(-1.2, 1.2, 40 * 16).view(40, 1, 4, 4)  # more than pass at a time
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().mean((2, 3))
    assert torch.allclose(extractor.features(images), levels * torch.arange(3.0), atol=1e-4)
    assert torch.equal(extractor.features(images.flip(0)).flip(0), extractor.features(images))
    assert extractor.feature_name == "DINOv2 ViT-S/14 features"
    for home in ("one", "two"):  # still followed
        monkeypatch.setenv("TORCH_HOME", home)
        assert torch.hub.get_dir() == f"{home}/hub"


def test_nothing_is_downloaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "load", lambda *_, **__: pytest.fail("asked for the hub"))
    for missing in ("facebookresearch_dinov2_main/hubconf.py", "checkpoints/dinov2_vits14_pretrain.pth"):
        (folder / missing).unlink()
        with pytest.raises(UserError, match=r"needs a checkout of its repository .* and its weights"):
            DinoFeatures(folder, trust=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    with pytest.raises(UserError, match="or measure with the set's classifier"):
        DinoFeatures(trust=True)


def test_bad_input(folder, monkeypatch):
    with pytest.raises(UserError, match="the sizes s, b, l, g, not 'xl'"):
        DinoFeatures(folder, "xl", trust=True)
    torch.save(torch.nn.Linear(2, 2), folder / "checkpoints" / "dinov2_vits14_pretrain.pth")
    with pytest.raises(UserError, match="holds more than weights"):
        DinoFeatures(folder, trust=True)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_dinov2", None)
    with pytest.raises(UserError, match="needs the package torch-fidelity"):
        DinoFeatures(folder, trust=True)
