import json

import numpy as np
import pytest
from PIL import Image

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.data.sources import load_images
from consistency_lab.plots.samples import write_samples


def run(trained, *arguments):
    return main(["sample", "mlp-s0", "--store", str(trained), "--device", "cpu", *map(str, arguments)])


def test_images_are_those_of_the_model_in_every_form(trained, tmp_path):
    options = ("--count", 5, "--seed", 3, "--sampler", "ddim(steps=4)")
    for out in ("a.npz", "a.png", "a"):
        assert run(trained, *options, "--out", tmp_path / out) == 0
    model = cl.load("mlp-s0", store=trained, device="cpu")
    own = model.generate(cl.SharedNoise(3), range(5), cl.Sampler(steps=4)).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["images"], own)
    pixels = ((own.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)[:, 0]
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * 8, 3 * 8)  # three columns
    for index in range(5):
        row, column = divmod(index, 3)
        np.testing.assert_array_equal(sheet[8 * row : 8 * row + 8, 8 * column : 8 * column + 8], pixels[index])
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a" / f"{index}.png")), pixels[index])
    assert (sheet[8:, 16:] == 0).all()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [f"{i}.png" for i in range(5)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--count", "0"), "1 or more"),
        (("--labels", "3"), "knows no labels"),
        (("--guidance", "2"), "no labels to be guided by"),
        (("--out", "samples.jpg"), "not as .jpg"),
        (("--sampler", "ddum"), "ddim"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(trained, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run(trained, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_a_dry_run_writes_nothing(trained, tmp_path, capsys):
    out = tmp_path / "there.png"
    assert run(trained, "--dry-run", "--json", "--count", 2, "--out", out) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert not out.exists()
    out.write_text("mine")
    assert run(trained, "--count", 2, "--out", out) == 2
    assert out.read_text() == "mine"
    assert run(trained, "--count", 2, "--force", "--out", out) == 0
    assert Image.open(out).size == (16, 8)


def test_images_of_two_channels_are_numbers_only(tmp_path):
    import torch

    with pytest.raises(cl.UserError, match="no colours"):
        write_samples(torch.zeros(2, 2, 4, 4), tmp_path / "a.png")
    write_samples(torch.zeros(2, 2, 4, 4), tmp_path / "a.npz")
    assert np.load(tmp_path / "a.npz")["images"].shape == (2, 2, 4, 4)


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("consistency-lab 0.")


def test_a_recipe_is_trained_by(trained, tiny, tmp_path, capsys):
    path = tmp_path / "recipe.json"
    cl.Recipe.paper().save(path)
    capsys.readouterr()
    assert main(["train", *tiny, "--recipe", str(path), "--store", str(tmp_path / "runs"), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["models"][0]["settings"]
    assert (told["timesteps"]["center"], told["timesteps"]["width"]) == (0.3, 0.2)
    assert "mdlrc" in str(told["momentum"])
    assert main(["train", *tiny, "--recipe", str(tmp_path / "none.json"), "--store", str(tmp_path / "runs")]) == 2
    assert "there is no recipe" in capsys.readouterr().err


def test_a_set_that_is_not_there_is_said_to_be_no_path_either():
    with pytest.raises(cl.UserError, match="no file or folder of that name"):
        load_images("nope")
