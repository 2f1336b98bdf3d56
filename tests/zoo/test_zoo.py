"""The models that ship with the package: each file is what its plan says, opens everywhere, and was not changed."""

import json
import shlex
import shutil
from functools import cache

import pytest
import safetensors
import torch

import consistency_lab as cl
from consistency_lab import zoo
from consistency_lab.addresses import read_address
from consistency_lab.cli import main
from consistency_lab.cli.parsing import parse
from consistency_lab.errors import DamagedError, UserError
from consistency_lab.loading import load, load_all
from consistency_lab.model_kinds import kind_of
from consistency_lab.presets import quick_plan, zoo_plan
from consistency_lab.store.run import Run
from consistency_lab.studies.demo import run_quick
from consistency_lab.training.settings import TrainingSettings

NAMES = zoo.ZOO.names()
DIFFUSION = [name for name in NAMES if isinstance(zoo_plan()[name], TrainingSettings)]
MLPS = ["fashion-mlp-s0", "fashion-mlp-s1"]


def about(name):
    with safetensors.safe_open(zoo.FOLDER / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["consistency_lab"])


@cache
def fashion(assets):
    return cl.load_images("fashion-mnist", data_dir=assets)


def test_the_files_are_those_of_the_plan():
    assert sorted(zoo_plan()) == NAMES
    assert all((zoo.FOLDER / f"{name}.safetensors").stat().st_size <= 1_500_000 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_what_its_command_trains(name):
    told, settings = about(name), zoo_plan()[name]
    asked = parse(shlex.split(told["command"])[1:])
    assert asked.settings.replace(seed=int(asked.seeds)) == settings
    assert told["kind"] == kind_of(settings).name
    assert told["spec"]["data"]["name"] == "fashion-mnist/train"
    assert told["spec"]["data"]["images"] == 60_000
    assert told["seconds"] > 0
    assert "MIT" in told["licence"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_of_the_run_that_the_plan_asks_for(name, assets):
    settings = zoo_plan()[name]
    asked = kind_of(settings).spec(fashion(assets), settings, torch.device("cpu"))
    assert json.loads(json.dumps(asked)) == about(name)["spec"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_makes_clothes_and_not_noise(name):
    model = load(f"zoo:{name}")
    assert (model.name, model.facts["zoo"], model.facts["stored"]) == (name, name, "float16")
    how = {"sampler": cl.Sampler(steps=25)} if name in DIFFUSION else {}
    images = model.generate(cl.SharedNoise(0), range(4), **how)
    assert images.shape == (4, 1, 28, 28)
    beyond = (images.abs() > 1.5).float().mean()
    assert beyond <= 0.01
    corners = images[:, :, ::27, ::27]  # clothes leave these black
    assert corners.mean() < -0.9
    assert images[:, :, 10:18, 10:18].mean() > -0.5


def test_seeds_agree_under_shared_noise():
    found = cl.compare(load_all([f"zoo:{name}" for name in MLPS]), count=16, sampler=cl.Sampler("dpm++2m", 8))
    assert found["score"].sel(metric="mse").isel(t=-1).item() > 0.6


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="fashion-unet-s0"):
        load("zoo:fashion-unt-s0")
    with pytest.raises(UserError, match="zoo"):
        read_address("zoo:fashion-unet-s0?steps=3")


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "m.safetensors"
    shutil.copy(zoo.FOLDER / f"{MLPS[0]}.safetensors", file)
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(DamagedError, match=r"m\.safetensors"):
        load("zoo:m")


def test_packing_rounds_to_float16_and_nothing_else(tmp_path, monkeypatch):
    images = cl.load_images("digits")
    trained = cl.train(images, network="mlp(width=16, depth=1)", steps=2, store=tmp_path / "runs")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    zoo.pack(trained.folder, tmp_path / "small.safetensors", {})
    opened = load("zoo:small")
    assert opened.facts["spec"] == trained.facts["spec"]
    for key, value in trained.denoiser.state_dict().items():
        assert torch.equal(opened.denoiser.state_dict()[key], value.half().float())


def test_what_float16_cannot_hold_is_not_packed(tmp_path):
    images = cl.load_images("digits")
    settings = TrainingSettings(network="mlp(width=16, depth=1)", steps=2, lr=1e7, clip_norm=0.0, lr_warmup=0)
    trained = cl.train(images, settings=settings, store=tmp_path / "runs")
    with pytest.raises(UserError, match="float16"):
        zoo.pack(trained.folder, tmp_path / "large.safetensors", {})
    assert not (tmp_path / "large.safetensors").exists()


def test_a_run_that_is_no_model_is_not_packed(tmp_path):
    folder = tmp_path / "runs" / "result-x"
    folder.mkdir(parents=True)
    with pytest.raises(Exception, match="result-x"):
        zoo.pack(Run.open(folder), tmp_path / "x.safetensors", {})


def test_results_of_the_zoo_are_measured_again_from_it(tmp_path, capsys):
    found = cl.compare(load_all([f"zoo:{name}" for name in MLPS]), count=8, sampler=cl.Sampler("dpm++2m", 4))
    cl.save_result(found, tmp_path / "c.nc")
    assert main(["reproduce", str(tmp_path / "c.nc"), "--store", str(tmp_path / "none"), "--dry-run"]) == 0
    assert "load zoo:fashion-mlp-s0" in capsys.readouterr().out
    assert main(["reproduce", str(tmp_path / "c.nc"), "--store", str(tmp_path / "none"), "--quiet"]) == 0
    assert not (tmp_path / "none").exists()


def test_the_quick_plan_names_models_of_the_zoo_that_can_be_compared():
    for members in quick_plan().families.values():
        assert len({load(f"zoo:{name}").noise_shape for name in members}) == 1


def test_the_quick_demo_compares_and_trains_nothing(tmp_path, monkeypatch, capsys):
    plan = quick_plan()
    small = type(plan)({"comparison": tuple(MLPS)}, plan.data, plan.metrics, 8, {"method": "dpm++2m", "steps": 4})
    monkeypatch.setattr("consistency_lab.presets.quick_plan", lambda: small)
    monkeypatch.setattr("consistency_lab.studies.demo.train", None)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "consistency score (mse)" in out
    assert "no closed-form references" in out  # its data are not here
    assert (tmp_path / "demo" / "report.html").is_file()
    assert main(["demo", "--quick"]) == 2  # what is there is not written over
    assert main(["demo", "--quick", "--preset", "fashion"]) == 2
    assert main(["demo", "--data-dir", "x"]) == 2


def test_references_stand_beside_the_zoo_where_its_data_are_here(assets):
    plan = quick_plan()
    small = type(plan)({"comparison": tuple(MLPS)}, plan.data, plan.metrics, 8, {"method": "dpm++2m", "steps": 4})
    found = run_quick(small, data_dir=assets)["comparison"]
    assert "gaussian" in found["reference"].values


def test_a_dry_run_knows_the_zoo_and_what_is_not_in_it(capsys):
    assert main(["compare", *(f"zoo:{name}" for name in MLPS), "--dry-run"]) == 0
    assert "zoo:fashion-mlp-s0" in capsys.readouterr().out
    assert main(["compare", "zoo:fashion-mlp-s0", "zoo:fashion-mlp-s9", "--dry-run"]) == 2
    assert "Did you mean 'fashion-mlp-s" in capsys.readouterr().err


def test_the_zoo_is_listed(capsys):
    assert main(["list", "zoo"]) == 0
    assert capsys.readouterr().out.split() == list(NAMES)
