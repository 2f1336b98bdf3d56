"""The commands `layers`, `snapshots` and `quality`, and what `compare` writes beside a comparison."""

import json
import warnings

import pytest
import torch

from consistency_lab.cli import main
from consistency_lab.similarity import quality
from consistency_lab.store.results import load_result


@pytest.fixture
def script(tmp_path):
    class Tiny(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean([1, 2])

    file = tmp_path / "mine.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export is to be used instead; SSCD is published in this form
        torch.jit.script(Tiny()).save(str(file))
    return file


def kinds(folder):
    return {path.stem: load_result(path).attrs["kind"] for path in (folder / "results").glob("*.nc")}


def test_compare_writes_what_it_is_asked_for_beside_the_comparison(trained, script, tmp_path, capsys, monkeypatch):
    written = {}
    monkeypatch.setattr(
        "consistency_lab.cli.compare.write_results", lambda results, out, title: written.update(results)
    )
    names = ["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--device", "cpu", "--data", "digits"]
    few = ["--count", "6", "--sampler", "ddim(steps=3)", "--metrics", "mse", "--out", str(tmp_path / "c")]
    assert main([*names, *few, "--frozen", "--copies", f"sscd(path={str(script)!r}, size=8)", "--trust"]) == 0
    found = {name: ds.attrs["kind"] for name, ds in written.items()}
    assert found == {"comparison": "comparison", "frozen": "frozen comparison", "reproducibility": "reproducibility"}
    copies, frozen, comparison = (written[name] for name in ("reproducibility", "frozen", "comparison"))
    assert "8x8" in copies.attrs["note"]
    assert "gl" in copies
    assert frozen["t"].values.tolist() == comparison["t"].values[:-1].tolist()
    assert "drift" in frozen
    assert copies.sizes["sample"] == frozen.sizes["sample"] == 6
    printed = capsys.readouterr().out
    assert "Reproducibility (RP) and generalisation (GL) at 0.6" in printed
    assert "other noise (null)" in printed
    assert "copies-mine" in printed


def test_a_dry_run_counts_what_is_asked_for(trained, script, tmp_path, capsys):
    names = [
        "compare",
        "mlp-s0",
        "mlp-s1",
        "--store",
        str(trained),
        "--count",
        "10",
        "--dry-run",
        "--json",
        "--data",
        "digits",
    ]
    counted = []
    for options in ([], ["--frozen"], ["--copies", str(script), "--trust"]):
        assert main([*names, *options, "--out", str(tmp_path / "c")]) == 0
        counted.append(json.loads(capsys.readouterr().out)["network_evaluations"])
    assert counted == [2 * 10 * 150, 2 * 10 * 163, 2 * 10 * 200]


def test_layers_snapshots_and_quality(trained, tmp_path, capsys, monkeypatch):
    train = quality.train_classifier
    monkeypatch.setattr(quality, "train_classifier", lambda *args, **_: train(*args, steps=5))
    models = ["mlp-s0", "mlp-s1", "--store", str(trained), "--device", "cpu"]
    monkeypatch.setattr(
        quality, "set_classifier", lambda images, store: train(images.all(), images.labels, "d", steps=5)
    )
    for command, options, said in (
        ("layers", ["--data", "digits", "--count", "8", "--times", "0.3"], "linear CKA, unbiased"),
        ("snapshots", ["--count", "4", "--sampler", "ddim(steps=2)"], "are not independent models"),
        ("quality", ["--count", "30", "--sampler", "ddim(steps=2)"], "30 samples are few for 64 features"),
    ):
        out = tmp_path / command
        assert main([command, *models, *options, "--out", str(tmp_path / "dry"), "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["network_evaluations"] > 0
        assert main([command, *models, *options, "--out", str(out)]) == 0
        assert said in capsys.readouterr().out
        assert list(kinds(out)) == [command]
        assert list((out / "figures").glob(f"{command}-*.png"))
    assert not (tmp_path / "dry").exists()
    mapped = ["--layers", "network.linear_in=network.linear_in", "--count", "8", "--times", "0.3"]
    assert main(["layers", *models, *mapped, "--out", str(tmp_path / "mapped")]) == 0
    assert load_result(tmp_path / "mapped" / "results" / "layers.nc")["layer"].values.tolist() == ["network.linear_in"]


def test_predict_needs_no_model(tmp_path, capsys):
    out = tmp_path / "p"
    assert main(["predict", "32", "400", "--count", "4", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.split()[:1] in (["32"], ["400"])] == [
        ["32", "0.742"],
        ["400", "0.981"],
    ]
    assert kinds(out) == {"prediction": "prediction"}
    assert list((out / "figures").glob("prediction-*.png"))
    for wrong, said in (
        (["32", "--out", str(out)], "holds results already"),
        ([], "name a number of images or more"),
        (["1", "--out", str(tmp_path / "none")], "n is a whole number of 2 or more, not 1"),
    ):
        assert main(["predict", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["compare", "mlp-s0", "mlp-s1", "--frozen"], "--frozen shows the models noisy images: name the set in --data"),
        (["compare", "mlp-s0", "mlp-s1", "--copies", "none.pt"], "there is no file none.pt"),
        (["quality"], "name a model or more"),
        (["quality", "mlp-s0", "--count", "1"], "--count must be 2 or more, not 1"),
        (["quality", "mlp-s0", "--weights", "w.pth"], "--weights belongs to --features inception"),
        (["layers", "mlp-s0"], "two models or more"),
        (["layers", "mlp-s0", "mlp-s1", "--layers", "a=b", "c"], "either patterns or pairs A=B"),
        (["snapshots"], "name a run or more"),
        (["snapshots", "mlp-s0", "--count", "1"], "two samples or more"),
    ],
)
def test_bad_input_is_one_sentence(command, said, trained, tmp_path, capsys):
    store = ["--store", str(trained), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*command, *store]) == 2
    assert said in capsys.readouterr().err
