"""A run that goes on from a trained model."""

import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.store.run import Run
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import DenoisingBatches, build_denoiser

MLP = "mlp(width=16, depth=1)"
TINY = {"steps": 30, "batch": 32, "lr_warmup": 5, "snapshots": 2}
QUIET = {"device": "cpu", "progress": False}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(65, 64)

    def forward(self, x, t, cond=None):
        return self.layer(torch.cat([x.flatten(1), t[:, None]], 1)).view_as(x)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    cl.train(images, network=MLP, predicts="v", seed=2, store=root, **TINY, **QUIET)
    return root


def test_a_run_begins_with_the_weights_of_another_and_says_so(images, store):
    model = cl.load("mlp-s2", store=store, device="cpu")
    still = cl.train(images, start=model, steps=1, lr=1e-12, **QUIET)
    assert torch.allclose(weights(still), weights(model), atol=1e-6)
    assert still.facts["predicts"] == "v"  # the settings are the model's
    assert still.facts["seeds"] == {"init": 2, "order": 2, "noise": 2}
    assert still.facts["start"]["steps"] == 30
    raw = cl.load("mlp-s2", store=store, device="cpu", weights="raw")
    other = cl.train(images, start=raw, steps=1, lr=1e-12, **QUIET)
    assert torch.allclose(weights(other), weights(raw), atol=1e-6)
    assert other.facts["start"]["weights"] != still.facts["start"]["weights"]
    fresh = build_denoiser(still.facts["spec"])
    assert not torch.allclose(torch.cat([p.flatten() for p in fresh.parameters()]), weights(model), atol=1e-3)


def test_a_name_a_folder_and_a_model_are_the_same_start(images, store):
    model = cl.load("mlp-s2", store=store, device="cpu")
    first = cl.train(images, start="mlp-s2", store=store, seed=7, **QUIET)
    assert first.name == "mlp-s2+30-s7"
    assert first.facts["seeds"] == {"init": 7, "order": 7, "noise": 7}
    for start in (model, model.folder, Run.open(model.folder)):
        again = cl.train(images, start=start, seed=7, **QUIET)
        assert again.facts["spec"] == first.facts["spec"]
        assert torch.equal(weights(again), weights(first))
    twice = cl.train(images, start=first, steps=10, **QUIET)
    assert twice.name == "mlp-s2+30-s7+10"
    assert twice.facts["start"]["steps"] == 60


def test_images_and_noise_are_those_of_the_steps_after(images):
    settings, cpu = TrainingSettings.of(network=MLP, **TINY), torch.device("cpu")
    whole, rest = DenoisingBatches(images, settings, cpu), DenoisingBatches(images, settings, cpu, first=30)
    for step in (0, 7):
        assert all(torch.equal(*pair) for pair in zip(rest.batch(step).data, whole.batch(30 + step).data, strict=True))


def test_a_network_of_ones_own_goes_on_without_being_given_again(images, tmp_path):
    model = cl.train(images, network=Net(), store=tmp_path, **TINY, **QUIET)
    more = cl.train(images, start=model, lr=1e-12, **QUIET)
    assert type(more.denoiser.network) is Net
    assert torch.allclose(weights(more), weights(model), atol=1e-6)
    assert cl.train(images, start=model.folder, network=Net(), **QUIET).facts["start"] == more.facts["start"]
    with pytest.raises(cl.UserError, match="a network of your own"):
        cl.train(images, start=model.folder, **QUIET)


def test_what_cannot_be_gone_on_from_is_refused(images, store):
    with pytest.raises(cl.UserError, match="looked up in a store"):
        cl.train(images, start="mlp-s2", **QUIET)
    with pytest.raises(cl.UserError, match="Did you mean 'mlp-s"):
        cl.train(images, start="mlp-s3", store=store, **QUIET)
    with pytest.raises(cl.UserError, match="another architecture"):
        cl.train(images, start="mlp-s2", store=store, network="mlp(width=8)", **QUIET)
    with pytest.raises(cl.UserError, match="trained here"):
        cl.train(
            images,
            start=cl.DiffusionModel("closed", cl.GaussianDenoiser.fit(images.all(), cl.SCHEDULES.build("linear"))),
        )


def test_the_command_line_goes_on_with_the_settings_of_the_run(store, capsys):
    line = ["train", "--start", "mlp-s2", "--store", str(store), "--dry-run", "--json", "--device", "cpu"]
    assert main([*line, "--steps", "12"]) == 0
    said = capsys.readouterr().out
    assert '"steps": 12' in said
    assert '"width": 16' in said
    assert '"name": "v"' in said
    assert '"start": {' in said
    assert '"name": "mlp-s2+12"' in said
    assert main([*line[:-4], "--device", "cpu", "--steps", "2", "--quiet"]) == 0
    assert "mlp-s2+2: " in capsys.readouterr().out
    assert main(["status", "--store", str(store)]) == 0
    (shown,) = [row for row in capsys.readouterr().out.splitlines() if "mlp-s2+2 " in row]
    assert "steps=2, " in shown
    assert shown.endswith("start=30")
    assert main([*line[:2], "mlp-s9", *line[3:]]) == 2
    assert "Did you mean 'mlp-s" in capsys.readouterr().err
