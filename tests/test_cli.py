import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from consistency_lab.cli import COMMANDS, LISTS, main, parse_seeds
from consistency_lab.errors import UserError
from consistency_lab.store.results import load_result
from consistency_lab.training.settings import TrainingSettings

TINY = ["--network", "mlp(width=16, depth=1)", "--steps", "30", "--batch", "32", "--quiet", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("cli") / "runs"
    assert main(["train", *TINY, "--seeds", "0-1", "--out", str(store)]) == 0
    return store


def test_help_waits_for_no_heavy_import():
    code = (
        "import sys\nfrom consistency_lab.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'scipy', 'seaborn', 'xarray', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert f"consistency-lab {name}" in text
    assert "Example:" in text
    for option in dataclasses.fields(COMMANDS[name]):
        positional = "Positional" in str(option.type)
        assert positional or option.name == "settings" or f"--{option.name.replace('_', '-')}" in text


def test_models_are_trained_listed_compared_probed_and_reported(trained, tmp_path, capsys):
    assert main(["status", "--store", str(trained)]) == 0
    assert capsys.readouterr().out.count("done") == 2
    common = ["--store", str(trained), "--quiet", "--device", "cpu"]
    out = tmp_path / "comparison"
    assert (
        main(
            [
                "compare",
                "mlp-s0",
                "mlp-s1",
                *common,
                "--count",
                "16",
                "--sampler-steps",
                "5",
                "--data",
                "digits",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "0." in capsys.readouterr().out
    assert load_result(out / "results" / "comparison.nc").sizes["sample"] == 16
    for name in ("report.html", "report.json", "report.md", "results/comparison.csv"):
        assert (out / name).stat().st_size > 100
    assert {p.suffix for p in (out / "figures").iterdir()} >= {".png", ".pdf", ".csv"}
    probed = {"difficulty": 1, "structure": 2, "landscape": 2, "connectivity": 2}
    for what, models in probed.items():
        names = ["mlp-s0", "mlp-s1"][:models]
        assert main(["probe", what, *names, *common, "--count", "8", "--out", str(tmp_path / what)]) == 0
        assert load_result(tmp_path / what / "results" / f"{what}-mlp-s0.nc").attrs["kind"] == what
        assert list((tmp_path / what / "figures").glob("*.png"))
    assert "gradient noise" in capsys.readouterr().out  # the table of definitions
    command = ["probe", "landscape", "--plane", "mlp-s0", *common, "--count", "2", "--out", str(tmp_path / "plane")]
    assert main(command) == 0
    assert load_result(tmp_path / "plane" / "results" / "plane-mlp-s0.nc").sizes["x"] == 15
    pages = [str(tmp_path / what / "results") for what in ("comparison", *probed)]
    assert main(["report", *pages, "--out", str(tmp_path / "all.html")]) == 0
    assert (tmp_path / "all.html").exists()


def test_status_shows_data_and_settings_that_are_not_at_their_defaults(trained, capsys):
    assert main(["status", "--store", str(trained)]) == 0
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first.endswith("digits, network=mlp(depth=1, width=16), steps=30, batch=32")
    assert second.endswith("digits, network=mlp(depth=1, width=16), steps=30, batch=32, seed=1")


def test_models_of_one_name_are_compared_under_names_that_differ_and_warnings_are_printed(trained, tmp_path, capsys):
    assert main(["train", *TINY, "--lr", "0.01", "--out", str(trained.parent / "more")]) == 0
    folders = [str(next(store.glob("model-mlp_s0*"))) for store in (trained, trained.parent / "more")]
    common = ["--quiet", "--device", "cpu", "--count", "8", "--sampler-steps", "4", "--metrics", "mse"]
    data = ["--data", "digits(size=8)", "--out", str(tmp_path / "c")]
    assert main(["compare", *folders, *common, *data]) == 0
    out = capsys.readouterr().out
    assert "mlp-s0 (lr=0.002) | mlp-s0 (lr=0.01)" in out
    assert "Warning: mlp-s0 (lr=0.002):" in out  # 30 steps are not a trained model
    assert "other images" not in out
    assert main(["report", str(tmp_path / "c"), "--out", str(tmp_path / "r.html"), "--dry-run"]) == 0
    assert "comparison.nc" in capsys.readouterr().out


def test_another_set_and_guidance_without_labels_are_said(trained, tmp_path, capsys):
    names = ["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--device", "cpu"]
    few = ["--count", "4", "--sampler-steps", "3", "--metrics", "mse", "--out", str(tmp_path / "c")]
    assert main([*names, *few, "--data", "gaussian(size=8, count=100)"]) == 0
    assert "trained on other images than 'gaussian" in capsys.readouterr().out
    assert main([*names, *few, "--guidance", "2"]) == 2
    assert "--guidance needs class-conditional models" in capsys.readouterr().err
    conditional = ["train", *TINY, "--conditional", "--name", "known", "--out", str(trained.parent / "labels")]
    assert main(conditional) == 0
    known = str(next((trained.parent / "labels").glob("model-known*")))
    assert main([*names[:2], known, *names[3:], *few, "--guidance", "2"]) == 0
    printed = capsys.readouterr()
    assert "no guidance for mlp-s0, trained without labels" in printed.err
    assert "mlp-s0 | known-cfg2" in printed.out


def test_published_sets_are_looked_for_in_the_data_folder_that_is_named(trained, tmp_path, capsys):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"no images")
    for command in (
        ["train", "--dry-run"],
        ["probe", "difficulty", "mlp-s0", "--store", str(trained), "--out", str(tmp_path / "p")],
    ):
        assert main([*command, "--data", "mnist", "--data-dir", str(tmp_path)]) == 2
        assert str(tmp_path / "mnist") in capsys.readouterr().err


def test_dry_runs_do_nothing(trained, tmp_path, capsys):
    assert main(["train", *TINY, "--seeds", "0,5", "--out", str(trained), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count('"parameters"') == 2
    assert '"done": true' in text
    assert '"done": false' in text
    assert main(["demo", "--dry-run", "--out", str(tmp_path / "demo")]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "digits"
    assert (
        main(["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--dry-run", "--out", str(tmp_path / "c")]) == 0
    )
    assert json.loads(capsys.readouterr().out)["network_evaluations"] == 2 * 256 * 150
    assert main(["probe", "difficulty", "mlp-s0", "--store", str(trained), "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_settings_file_gives_defaults_that_options_override(tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"network": "mlp", "steps": 77, "lr": 0.01}))
    assert main(["train", "--config", str(path), "--steps", "5", "--dry-run", "--out", str(tmp_path)]) == 0
    spec = json.loads(capsys.readouterr().out)
    assert (spec["settings"]["steps"], spec["settings"]["lr"]) == (5, 0.01)
    assert spec["settings"]["batch"] == TrainingSettings().batch


def test_everything_that_has_a_name_is_listed(capsys):
    for what in LISTS:
        assert main(["list", what]) == 0
    text = capsys.readouterr().out
    for name in (
        "unet-ddpm(",
        "dit-s2(",
        "uvit-s(",
        "fashion-mnist",
        "cifar10",
        "celeba",
        "mse",
        "dpm++2m",
        "edm(",
        "mdlrc",
        "clts(center=0.3",
    ):
        assert name in text
    assert main(["list", "networks", "unet*"]) == 0
    assert "dit" not in capsys.readouterr().out
    assert main(["list", "networks", "resnet*"]) == 2


def test_an_exported_model_meets_its_own_run(trained, tmp_path, capsys):
    folder = tmp_path / "exported"
    assert (
        main(
            [
                "train",
                "--network",
                "unet(width=8, groups=4)",
                "--steps",
                "3",
                "--quiet",
                "--device",
                "cpu",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert main(["export", "unet-s0", str(folder), "--store", str(tmp_path)]) == 0
    arguments = [
        "compare",
        "unet-s0",
        f"diffusers:{folder}?name=theirs",
        "--store",
        str(tmp_path),
        "--quiet",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--count", "4", "--sampler-steps", "3", "--out", str(tmp_path / "c")]) == 0
    result = load_result(tmp_path / "c" / "results" / "comparison.nc")
    assert result["distance"].sel(metric="mse").isel(t=-1).max() < 1e-6
    assert main(["export", "unet-s0", str(folder), "--store", str(tmp_path)]) == 2
    assert "exported" in capsys.readouterr().err


def test_seed_ranges():
    assert parse_seeds("0-3, 7,10-10") == [0, 1, 2, 3, 7, 10]
    for text in ("", "a", "3-1", "1,,2", "1-", "0-2,1"):
        with pytest.raises(UserError, match="seed"):
            parse_seeds(text)


def corrupt(trained, tmp_path):
    """A copy of a trained run whose weights are cut in half."""
    import shutil

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
    "unwritable store": (["train", *TINY, "--out", "{tmp}/file/runs"], "file"),
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
    "player of a diffusion model": (
        ["probe", "landscape", "mlp-s0", "--player", "generator", "--store", "{store}", "--out", "{tmp}/o"],
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
    "no such device": (["train", *TINY[:-1], "cuda:99"], "cannot be used"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_two(name, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text('{"stepz": 3}')
    places = {"store": str(trained), "tmp": str(tmp_path), "corrupt": corrupt(trained, tmp_path)}
    before = sorted(str(p) for p in Path(tmp_path).rglob("*") if ".lock" not in p.name)
    arguments, message = BAD[name]
    assert main([word.format(**places) if "{" in word and "}" in word else word for word in arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert sorted(str(p) for p in Path(tmp_path).rglob("*") if ".lock" not in p.name) == before


def test_an_unknown_option_is_status_two():
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--stepz", "3"])
    assert stopped.value.code == 2
