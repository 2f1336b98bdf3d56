"""The commands `status`, `list` and `export`."""

import subprocess
import sys

import pytest

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.cli.common import imported
from consistency_lab.cli.listing import LISTS
from consistency_lab.cli.names import names_at
from consistency_lab.data.sources import load_images
from consistency_lab.model_kinds import MODEL_KINDS
from consistency_lab.similarity.quality import set_classifier
from consistency_lab.store.results import load_result
from consistency_lab.store.runs import Store


def test_status_shows_data_and_settings_that_are_not_at_their_defaults(trained, capsys):
    assert main(["status", "--store", str(trained)]) == 0
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first.endswith("digits, network=mlp(depth=1, width=16), steps=30, batch=32")
    assert second.endswith("digits, network=mlp(depth=1, width=16), steps=30, batch=32, seed=1")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", "two\\nlines"),
        ("low\udcff", "low\\udcff"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("$x$ <b> |", "$x$ <b> |"),
    ],
)
def test_status_has_a_line_for_a_run_of_any_name_and_one_for_what_was_set_aside(tmp_path, capsys, name, shown):
    run = Store(tmp_path).run("model", name, {"data": name})
    with run.begin():
        run.finish({})
    aside = run.set_aside()
    with run.begin():
        run.finish({})
    assert main(["status", "--store", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert f"  {shown}  " in lines[0]
    assert lines[1] == f"1 set aside in {tmp_path / 'set-aside'}, which nothing reads: {aside.name}"


def test_status_lists_a_classifier_beside_models(tmp_path, capsys):
    set_classifier(load_images("digits"), Store(tmp_path), steps=2)
    assert main(["status", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split()[:3] == ["done", "classifier", "digits"]


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


def test_samplers_and_rules_are_listed(capsys):
    assert main(["list", "timesteps"]) == 0
    listed = capsys.readouterr().out
    assert "clts(center=0.3, width=0.2, horizon=1.0, floor=0.05, axis='timestep', weighted=False)" in listed
    assert "beta(a=..., b=..., floor=0.0, weighted=False)" in listed
    assert main(["list", "momentum"]) == 0
    listed = capsys.readouterr().out
    assert "constant\n" in listed
    assert "demon_adam(floor=0.0, start=0.0)" in listed


def test_every_choice_of_every_kind_of_model_is_listed():
    for kind in MODEL_KINDS.values():
        homes = kind.settings.homes()
        assert homes
        assert set(homes.values()) <= set(LISTS.values())


@pytest.mark.parametrize("home", LISTS.values())
def test_names_are_listed_alike_with_and_without_the_code_that_they_name(home, monkeypatch):
    module, _, name = home.partition(":")
    registry = imported(module, name)
    assert names_at(home) is registry
    monkeypatch.delitem(sys.modules, f"consistency_lab.{module}")
    listed = names_at(home)
    assert listed is not registry
    assert listed.kind == registry.kind
    assert listed.names("*e*") == registry.names("*e*")
    for each in registry.names():
        assert listed.options(each) == registry.options(each)
        assert listed.describe(each) == registry.describe(each)


def test_what_is_registered_here_is_listed_too(capsys, monkeypatch):
    monkeypatch.setattr(cl.SCHEDULES, "_builders", dict(cl.SCHEDULES._builders))
    cl.SCHEDULES.register("mine", lambda *, bend=2.0: None)
    assert main(["list", "schedules", "m*"]) == 0
    assert capsys.readouterr().out == "mine(bend=2.0)\n"


@pytest.mark.parametrize("command", ["list networks", "list datasets", "list timesteps", "status"])
def test_listing_waits_for_no_heavy_import(command, trained):
    words = [*command.split(), "--store", str(trained)] if command == "status" else command.split()
    code = (
        f"import sys\nfrom consistency_lab.cli import main\nassert main({words!r}) == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'xarray', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "network=mlp(depth=1, width=16), steps=30, batch=32, seed=1" in done.stdout or command != "status"


def test_an_exported_model_meets_its_own_run(trained, tmp_path, capsys, undrawn):
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
                "--store",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert main(["export", "unet-s0", "--out", str(folder), "--store", str(tmp_path)]) == 0
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
    assert main([*arguments, "--count", "4", "--sampler", "ddim(steps=3)", "--out", str(tmp_path / "c")]) == 0
    result = load_result(tmp_path / "c" / "results" / "comparison.nc")
    assert result["distance"].sel(metric="mse").isel(t=-1).max() < 1e-6
    assert main(["export", "unet-s0", "--out", str(folder), "--store", str(tmp_path)]) == 2
    assert "exported" in capsys.readouterr().err


def test_status_lists_the_runs_of_all_machines_on_shared_storage(tmp_path, monkeypatch, capsys):
    for machine in ("a", "b"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        run = Store("memory://status").run("note", f"of {machine}", {"by": machine})
        with run.begin():
            run.log({"step": 1})
            if machine == "a":
                run.finish({})
    assert main(["status", "--store", "memory://status"]) == 0
    listed = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert listed == [["done", "note", "of", "a"], ["unfinished", "note", "of", "b"]]
