"""The commands that train."""

import json
import math

import pytest
import torch

from consistency_lab.cli import main
from consistency_lab.cli.common import parse_numbers
from consistency_lab.contrast.gan import train_gan
from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.contrast.vae import train_vae
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.loading import load
from consistency_lab.training.settings import TrainingSettings


def test_a_settings_file_gives_defaults_that_options_override(tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"network": "mlp", "steps": 77, "lr": 0.01}))
    assert main(["train", "--config", str(path), "--steps", "5", "--dry-run", "--json", "--store", str(tmp_path)]) == 0
    (spec,) = json.loads(capsys.readouterr().out)["models"]
    assert (spec["settings"]["steps"], spec["settings"]["lr"]) == (5, 0.01)
    assert spec["settings"]["batch"] == TrainingSettings().batch


def test_seed_ranges():
    assert parse_numbers("0-3, 7,10-10", "seeds") == [0, 1, 2, 3, 7, 10]
    for text in ("", "a", "3-1", "1,,2", "1-", "0-2,1"):
        with pytest.raises(UserError, match="seed"):
            parse_numbers(text, "seeds")


SMALL = {"steps": 3, "batch": 16}
CONTRASTS = {
    "train-gan": (train_gan, GANSettings, "gan-dense", {"penalty": 0.5}),
    "train-vae": (train_vae, VAESettings, "vae-conv", {"beta": 0.2}),
}


@pytest.mark.parametrize("command", CONTRASTS)
def test_gans_and_vaes_are_trained_as_in_python(command, tmp_path, capsys):
    train, _, name, own = CONTRASTS[command]
    options = [word for key, value in {**SMALL, **own}.items() for word in (f"--{key}", str(value))]
    line = [command, *options, "--quiet", "--device", "cpu", "--store", str(tmp_path)]
    assert main([*line, "--seeds", "1-2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [each.split(":")[0] for each in printed] == [f"{name}-s1", f"{name}-s2"]
    theirs = train(load_images("digits"), **SMALL, **own, seed=2, device="cpu", progress=False)
    ours = load(f"{name}-s2", store=tmp_path, device="cpu")
    assert ours.facts["spec"] == theirs.facts["spec"]
    weights = theirs.module.state_dict()
    assert all(torch.equal(weights[key], tensor) for key, tensor in ours.module.state_dict().items())
    assert main([*line, "--seeds", "1", "--dry-run", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["models"]
    assert planned["done"] is True
    assert planned["parameters"] == sum(math.prod(p.shape) for p in ours.module.parameters())
    assert main(["status", "--store", str(tmp_path)]) == 0
    (key, value), *_ = own.items()
    assert f"{key}={value}" in capsys.readouterr().out


@pytest.mark.parametrize("command", CONTRASTS)
def test_their_settings_files_are_their_own(command, tmp_path, capsys):
    _, settings, _, own = CONTRASTS[command]
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({**own, "steps": 77}))
    line = [command, "--config", str(path), "--batch", "7", "--dry-run", "--json", "--store", str(tmp_path / "runs")]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)["models"][0]["settings"]
    assert {"steps": 77, "batch": 7, "lr": settings().lr, **own}.items() <= found.items()
    path.write_text(json.dumps({"network": "mlp"}))
    assert main(line) == 2
    assert "training setting" in capsys.readouterr().err
