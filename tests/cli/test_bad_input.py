"""Whatever cannot be used ends in one sentence and status 2."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from consistency_lab.cli import main
from consistency_lab.cli.terminal import spell_out


def corrupt(trained, tmp_path):
    """A copy of a trained run whose weights are cut in half."""
    folder = next(trained.glob("model-mlp_s0*"))
    copy = tmp_path / "store" / folder.name
    shutil.copytree(folder, copy)
    weights = copy / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    return str(copy)


BAD = {
    "unknown network": (["train", "--network", "unett"], "Did you mean 'unet'"),
    "unknown data set": (["train", "--data", "digit"], "Did you mean 'digits'"),
    "unknown metric": (
        ["compare", "mlp-s0", "mlp-s1", "--store", "{store}", "--metrics", "mze", "--count", "4"],
        "Did you mean 'mse'",
    ),
    "unknown model": (["compare", "mlp-s0", "mlp-s9", "--store", "{store}"], "Did you mean"),
    "unknown preset": (["demo", "--preset", "digit"], "Did you mean 'digits'"),
    "unknown key in a file": (["train", "--config", "{tmp}/bad.json"], "Did you mean 'steps'"),
    "batch too large": (["train", "--batch", "5000"], "larger than the 1797 images"),
    "empty folder": (["train", "--data", "{tmp}/empty"], "empty"),
    "unwritable store": (["train", "--steps", "1", "--quiet", "--store", "{tmp}/file/runs"], "file"),
    "unwritable output": (["compare", "mlp-s0", "mlp-s1", "--store", "{store}", "--out", "{tmp}/file/out"], "file"),
    "truncated weights": (["probe", "difficulty", "{corrupt}", "--out", "{tmp}/p"], "ema.safetensors"),
    "one model": (["compare", "mlp-s0", "--store", "{store}", "--out", "{tmp}/o"], "at least two models"),
    "three models on a line": (
        ["probe", "landscape", "mlp-s0", "mlp-s1", "mlp-s0", "--store", "{store}"],
        "one or two models",
    ),
    "two models for a plane": (
        ["probe", "landscape", "--plane", "mlp-s0", "mlp-s1", "--store", "{store}"],
        "one or three models",
    ),
    "a plane of something else": (["probe", "curvature", "--plane", "mlp-s0", "--store", "{store}"], "probe landscape"),
    "part of a diffusion model": (
        ["probe", "landscape", "mlp-s0", "--part", "generator", "--store", "{store}", "--out", "{tmp}/o"],
        "is no GAN or VAE",
    ),
    "one model to connect": (["probe", "connectivity", "mlp-s0", "--store", "{store}"], "takes two models, not 1"),
    "no results": (["report"], "nothing to report"),
    "missing result": (["report", "{tmp}/none.nc"], "none.nc"),
    "a folder without results": (["report", "{tmp}/empty"], "there are no results"),
    "no metrics": (["compare", "mlp-s0", "mlp-s1", "--store", "{store}", "--metrics"], "at least one name"),
    "a setting out of range": (["train", "--steps", "-5"], "consistency-lab: steps must be above 0, not -5."),
    "unquoted text": (["train", "--data", "cifar10(split=test)"], "text in quotes"),
    "text for a number": (["train", "--optimizer", "adam(beta1='a')"], "give a number"),
    "bad seeds": (["train", "--seeds", "3-1"], "rising"),
    "an endless range of seeds": (["train", "--seeds", "0-99999999999"], "write a shorter range"),
    "an empty settings file": (["train", "--config="], "settings file"),
    "a probe of nothing": (["probe", "difficulty", "mlp-s0", "--store", "{store}", "--count", "0"], "1 or more"),
    "a study of fewer than two": (["study", "likeness", "--count", "-1", "--dry-run"], "2 or more"),
    "a file for a store": (["status", "--store", "{tmp}/file"], "is a file"),
    "a folder of images": (["gate", "{tmp}/pictures", "mlp-s0", "--store", "{store}"], "write images:{tmp}/pictures"),
    "a folder of nothing known": (
        ["compare", "{tmp}/empty", "mlp-s0", "--store", "{store}"],
        "neither a run of this package",
    ),
    "a file of weights without its ending": (["probe", "difficulty", "{tmp}/net-0"], "net-0.pt lies there"),
    "no store": (["compare", "unet-s0", "unet-s1", "--store", "{tmp}/runs"], "runs is not there, so has no model"),
    "no model in a store": (["compare", "unet-s0", "unet-s1", "--store", "{tmp}/empty"], "empty holds no model"),
    "a folder of nearly that name": (
        ["gate", "images:{tmp}/pictures", "images:{tmp}/picturs"],
        "Did you mean '{tmp}/pictures'?",
    ),
    "a probe on images of another shape": (
        ["probe", "difficulty", "zoo:fashion-unet-s0", "--device", "cpu"],
        "(1, 28, 28), but 'digits' has images of (1, 8, 8). --data is 'digits' (the default); give --data",
    ),
    "a landscape on images of another shape": (
        ["probe", "landscape", "zoo:fashion-gan-s0", "--device", "cpu"],
        "(1, 28, 28), but 'digits' has images of (1, 8, 8). --data is 'digits' (the default); give --data",
    ),
    "folders and images of another shape": (
        ["compare", "images:{tmp}/pictures", "images:{tmp}/others", "--data", "digits"],
        "(3, 32, 32), but 'digits' has images of (1, 8, 8). --data is 'digits'; give --data",
    ),
    "a store in memory": (["train", "--steps", "1", "--store", "memory://x"], "would be lost with it"),
    "no such device": (["train", "--device", "cuda:99"], "cannot be used"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_two(name, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text('{"stepz": 3}')
    (tmp_path / "net-0.pt").write_text("")
    for folder in ("pictures", "others"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.new("RGB", (32, 32), (i, 2 * i, 3 * i)).save(tmp_path / folder / f"{i}.png")
    places = {"store": str(trained), "tmp": str(tmp_path), "corrupt": corrupt(trained, tmp_path)}
    before = sorted(str(p) for p in Path(tmp_path).rglob("*") if ".lock" not in p.name)
    arguments, message = BAD[name]
    assert main([word.format(**places) if "{" in word and "}" in word else word for word in arguments]) == 2
    printed = capsys.readouterr()
    assert message.format(**places) in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert sorted(str(p) for p in Path(tmp_path).rglob("*") if ".lock" not in p.name) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_gets_ascii(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    spell_out()
    print("−0.1 → ∞, mᵢ, \N{SNOWMAN}", flush=True)
    assert written.getvalue().decode(encoding) == "-0.1 -> inf, m_i, \\u2603\n"
