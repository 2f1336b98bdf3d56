"""What is said of a file of weights, or a name, that says no more than its tensors' names."""

import os

import pytest
import safetensors.torch
import torch
from torch import nn

from consistency_lab.cli import main
from consistency_lab.errors import UserError
from consistency_lab.interop.files import is_hub_name, is_weights, refuse_weights
from consistency_lab.loading import load


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def state(prefix="", scale=1.0):
    return {f"{prefix}{key}": scale * value for key, value in Net().state_dict().items()}


def said_of(content, path):
    torch.save(content, path)
    with pytest.raises(UserError) as caught:
        load(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (
            state(),
            "weights: 7 tensors, 57 numbers (conv.weight (4, 1, 3, 3), conv.bias (4,), norm.weight (4,), ...)",
        ),
        ({"state_dict": state("model.")}, "weights under ['state_dict'], names beginning with 'model.'"),
        # As ema_pytorch and denoising-diffusion-pytorch keep them: both networks in one flat table.
        (
            {"ema": {**state("online_model."), **state("ema_model."), "initted": torch.tensor(True)}},
            "averaged weights under ['ema'], names beginning with 'ema_model.'",
        ),
        ({"model": state(), "model_ema": state()}, "averaged weights under ['model_ema']"),
        (
            {"g": {"deep": state("_orig_mod.module.")}},
            "weights under ['g']['deep'], names beginning with '_orig_mod.module.'",
        ),
    ],
)
def test_the_weights_are_found_and_the_lines_load_them(content, held, tmp_path):
    said = said_of(content, tmp_path / "x.pt")
    assert held in said
    code = [line.strip() for line in said.splitlines()[1:]]
    names = {"MyNetwork": lambda _: Net()}
    exec("\n".join(code[: next(i for i, line in enumerate(code) if "load_state_dict" in line) + 1]), names)
    assert isinstance(names["net"], Net)


def test_an_optimizer_is_no_network_and_nothing_is_nothing(tmp_path):
    adam = {"optimizer": {"exp_avg": torch.zeros(3, 3)}, "step": 3}
    assert "holds no named tensors" in said_of(adam, tmp_path / "o.pt")


def test_safetensors_are_read_too(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(state("module."), path)
    with pytest.raises(UserError, match=r"weights, names beginning with 'module.': 7 tensors") as caught:
        load(str(path))
    code = [line.strip() for line in str(caught.value).splitlines()[1:]]
    names = {"MyNetwork": lambda _: Net()}
    exec("\n".join(code[:3]), names)
    assert isinstance(names["net"], Net)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_what_would_run_code_stays_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "opening it would run their code, so it stays closed" in said_of({"ema": Bomb()}, tmp_path / "bomb.pt")
    assert "stays closed" in said_of(Net(), tmp_path / "whole.pt")  # a pickled module
    assert not (tmp_path / "exploded").exists()


def test_damaged_absent_and_scripted(tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "folder.pt").mkdir()
    script = torch.jit.script(nn.Linear(2, 2))
    script.save(str(tmp_path / "script.pt"))
    for name, said in [
        ("bad.ckpt", "truncated or is no file|stays closed"),
        ("absent.pth", "there is no file"),
        ("folder.pt", "is a folder"),
        ("script.pt", r"is TorchScript.*torchscript:.*\?schedule="),
    ]:
        with pytest.raises(UserError, match=said):
            refuse_weights(tmp_path / name)


def test_what_the_command_line_says_of_files_and_names(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": state("module.")}, "file.pt")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    for argument, said in [
        ("file.pt", "averaged weights under ['ema']"),
        ("google/ddpm-cat-256", "hf download google/ddpm-cat-256 --local-dir ddpm-cat-256"),
        ("pipeline", "write diffusers:pipeline"),
    ]:
        for more in ([], ["--dry-run"]):
            assert main(["compare", argument, argument, "--store", "runs", "--device", "cpu", *more]) == 2
            assert said in capsys.readouterr().err


def test_what_is_taken_for_weights_and_for_a_name_on_the_hub():
    assert all(map(is_weights, ["a.pt", "b/c.CKPT", "C:/x.safetensors"]))
    assert not any(map(is_weights, ["unet-s0", "torchscript:a.pt?x=1", "a.pkl", "runs/model-x"]))
    assert is_hub_name("org/name-1.5")
    assert not any(map(is_hub_name, ["name", "a/b/c", "/a", "./a"]))
