import json

import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import StoreError, UserError
from consistency_lab.interop.diffusers import import_diffusers, load_diffusers
from consistency_lab.interop.export import export_diffusers
from consistency_lab.interop.module import wrap_module
from consistency_lab.networks.registry import build_network
from consistency_lab.training.train import train

diffusers = pytest.importorskip("diffusers")
SHAPE = (1, 8, 8)
UNET = "unet(width=8, multipliers=(1, 2), attention=(1,))"


def make(network=UNET, shape=SHAPE, classes=0, schedule="linear", predicts="eps"):
    """A model whose every weight has been moved away from its initial value, zeros included."""
    module = build_network(network, shape, classes, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    denoiser = NetworkDenoiser(module, SCHEDULES.build(schedule), shape, predicts).eval()
    return DiffusionModel("ours", denoiser, {"choice": network, "steps": 7}, classes=classes)


def same_weights(a, b):
    one, other = a.denoiser.network.state_dict(), b.denoiser.network.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("network", [UNET, "unet(width=8, head_width=4, attention=(0, 1), symmetric_padding=False)"])
def test_diffusers_loads_what_was_exported_and_computes_the_same(tmp_path, network):
    model = make(network)
    said = export_diffusers(model, tmp_path / "out")
    assert "diffusers.UNet2DModel.from_pretrained reads" in said
    theirs, info = diffusers.UNet2DModel.from_pretrained(
        tmp_path / "out", low_cpu_mem_usage=False, output_loading_info=True
    )
    assert not any(info.values())
    x = torch.randn(4, *SHAPE)
    for timestep in (0, 499, 999):
        with torch.no_grad():
            ours = model.denoiser.network(x, torch.full((4,), (timestep + 1) / 1000))
            torch.testing.assert_close(theirs(x, timestep).sample, ours, atol=1e-5, rtol=0)
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    assert (scheduler.config.timestep_spacing, scheduler.config.clip_sample) == ("trailing", False)


@pytest.mark.parametrize(
    ("network", "classes"),
    [(UNET, 0), (UNET, 3), ("mlp(width=16)", 0), ("dit(width=16, heads=2)", 3), ("mlp(width=16)", 3)],
)
@pytest.mark.parametrize(
    ("schedule", "predicts"), [("linear", "eps"), ("cosine", "v"), ("flow", "flow"), ("edm", "edm(sigma_data=0.5)")]
)
def test_it_comes_back_to_the_bit(tmp_path, network, classes, schedule, predicts):
    model = make(network, classes=classes, schedule=schedule, predicts=predicts)
    said = export_diffusers(model, tmp_path / "out")
    back = import_diffusers(tmp_path / "out", device="cpu", name="back")
    assert same_weights(model, back)
    assert (back.denoiser.schedule, back.denoiser.predicts) == (model.denoiser.schedule, predicts)
    assert (back.classes, back.facts["exported"]["steps"]) == (classes, 7)
    sampler = Sampler(steps=3)
    assert torch.equal(*(m.generate(SharedNoise(0), range(3), sampler) for m in (model, back)))
    assert ("only consistency_lab" in said) == (network != UNET or schedule in ("flow", "edm"))
    # Whatever the network is, this reads the folder.
    again = load_diffusers(tmp_path / "out", device="cpu").generate(SharedNoise(0), range(3), sampler)
    torch.testing.assert_close(again, model.generate(SharedNoise(0), range(3), sampler), atol=1e-4, rtol=0)


def test_a_network_that_diffusers_does_not_have_says_so_and_is_exported_again(tmp_path):
    model = make("mlp(width=16)")
    assert "diffusers has no MLP" in export_diffusers(model, tmp_path / "one")
    assert json.loads((tmp_path / "one" / "config.json").read_text())["_class_name"] == "consistency_lab.MLP"
    export_diffusers(load_diffusers(tmp_path / "one", device="cpu"), tmp_path / "two")
    assert same_weights(model, import_diffusers(tmp_path / "two", device="cpu"))


def test_a_trained_model_brings_its_options_along(tmp_path):
    images = ImageSet.from_array(torch.rand(32, 1, 8, 8) * 2 - 1, "noise", value_range=(-1, 1))
    model = train(images, network="mlp(width=24)", steps=2, batch=8, device="cpu", progress=False)
    export_diffusers(model, tmp_path / "out")
    back = import_diffusers(tmp_path / "out", device="cpu")
    assert same_weights(model, back)
    assert back.facts["exported"]["data"]["fingerprint"] == images.fingerprint


def test_only_an_empty_folder_is_written_to(tmp_path):
    (tmp_path / "empty").mkdir()
    export_diffusers(make(), tmp_path / "empty")
    with pytest.raises(StoreError, match="not an empty folder"):
        export_diffusers(make(), tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="not an empty folder"):
        export_diffusers(make(), tmp_path / "file")
    with pytest.raises(StoreError, match="cannot write"):
        export_diffusers(make(), tmp_path / "file" / "below")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("consistency_lab.interop.export._write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        export_diffusers(make(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path):
    conditional = make(classes=3)
    call = {"call": lambda module, x, time: module(x)}
    wrapped = wrap_module(
        torch.nn.Identity(), schedule="linear", predicts="eps", shape=SHAPE, name="w", time="unit", **call
    )
    closed = DiffusionModel("closed", GaussianDenoiser.fit(torch.randn(10, *SHAPE), SCHEDULES.build("linear")))
    for model in (conditional.guided(2.0), wrapped, closed):
        with pytest.raises(UserError, match="not one network of ours"):
            export_diffusers(model, tmp_path / "out")
    unknown = make("mlp(width=16)")
    with pytest.raises(UserError, match="are not recorded"):
        export_diffusers(DiffusionModel("unknown", unknown.denoiser), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_network_of_the_paper(tmp_path):
    model = make("unet-ddpm", (3, 32, 32))
    assert sum(p.numel() for p in model.denoiser.parameters()) > 35e6
    export_diffusers(model, tmp_path / "out")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "out", low_cpu_mem_usage=False)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        ours = model.denoiser.network(x, torch.tensor([0.5]))
        torch.testing.assert_close(theirs(x, 499).sample, ours, atol=1e-5, rtol=0)
    assert same_weights(model, import_diffusers(tmp_path / "out", device="cpu"))
