"""The commands `recipe` and `race`."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from consistency_lab import presets
from consistency_lab.cli import main
from consistency_lab.cli.race import Race
from consistency_lab.paper.race import plan as planning
from consistency_lab.recipe import Recipe
from consistency_lab.store.results import load_result, save_result
from consistency_lab.studies import cost
from consistency_lab.training.settings import TrainingSettings

T = (np.arange(20) + 0.5) / 20


def save(path, kind, variables=None, **attrs):
    save_result(
        xr.Dataset(variables or {}, {"units": ["eps"], "t": T}, {"kind": kind, "model": "pilot", **attrs}), path
    )
    return str(path)


@pytest.fixture
def difficulty(tmp_path):
    error = np.linspace(2, 1, 20)[None, :, None] * np.ones((1, 20, 3))
    return save(tmp_path / "difficulty.nc", "difficulty", {"error": (("units", "t", "sample"), error)})


def test_recipe_from_files(tmp_path, difficulty, capsys):
    smooth = save(tmp_path / "landscape.nc", "landscape", roughness=0.01)
    place = {"operator": ["hessian"], "part": ["all"], "end": ["top"], "rank": [1]}
    numbers = {"eigenvalue": (list(place), [[[[50.0]]]]), "trace": (["operator", "part"], [[1000.0]])}
    curvature = str(tmp_path / "curvature.nc")
    save_result(xr.Dataset(numbers, place, {"kind": "curvature", "parameters": 2000}), tmp_path / "curvature.nc")
    out = tmp_path / "recipe.json"
    assert main(["recipe", difficulty, smooth, "--out", str(out), "--measured-momentum", "--dry-run"]) == 0
    assert not out.exists()
    assert "MDLRC" in capsys.readouterr().out
    command = [
        "recipe",
        difficulty,
        smooth,
        curvature,
        "--draws",
        "objective",
        "--exponent",
        "0.5",
        "--steps",
        "400",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    expected = Recipe.from_findings(
        load_result(difficulty),
        [load_result(smooth)],
        curvature=load_result(curvature),
        draws="objective",
        exponent=0.5,
        settings=TrainingSettings(steps=400),
    )
    assert Recipe.load(out) == expected
    assert "lr_final" in expected.changes
    assert main(["recipe", "--out", str(out)]) == 0
    assert Recipe.load(out) == Recipe.paper()


def test_recipe_refuses_other_files(tmp_path, difficulty, capsys):
    other = save(tmp_path / "other.nc", "comparison")
    for files, message in (
        ([other], "is a result of kind 'comparison'"),
        ([difficulty, difficulty], "one difficulty result"),
        ([str(tmp_path / "no.nc")], "there is no result"),
    ):
        assert main(["recipe", *files]) == 2
        assert message in capsys.readouterr().err


def test_race_beforehand_and_itself(tmp_path, monkeypatch, capsys):
    plan = presets.race_plan("digits")
    base = plan.base.replace(network="mlp(width=16, depth=1)", steps=20, batch=32, lr_warmup=2)
    plan = dataclasses.replace(
        plan, base=base, seeds=2, pilot_steps=20, count=20, nfe=2, batch=32, every=5, horizons=(1.0,)
    )
    monkeypatch.setattr(presets, "race_plan", lambda preset: plan)
    monkeypatch.setattr(cost, "_LONG_ENOUGH", 0.01)
    classify = planning.set_classifier
    monkeypatch.setattr(planning, "set_classifier", lambda whole, store: classify(whole, store, steps=10))
    Recipe.paper(center=0.6).save(tmp_path / "elsewhere.json")
    common = ["--store", str(tmp_path / "runs"), "--out", str(tmp_path / "figures"), "--device", "cpu"]
    recipe = ["--recipes", str(tmp_path / "elsewhere.json")]
    assert main(["race", *common, *recipe, "--dry-run", "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    steps = ("recipe, followed density, 10 steps", "recipe from elsewhere, 10 steps")
    assert {"pilot", "target pilot", "uniform", *steps} <= set(jobs)
    assert set(jobs["uniform"]) == {"training", "evaluation"}
    assert not (tmp_path / "figures").exists()
    common += ["--contestants", "centers"]
    assert main(["race", *common, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "held-out loss: NOT qualified" in printed
    folder = tmp_path / "figures" / "digits"
    result = load_result(folder / "race-centers.nc")
    assert result.sizes["contestant"] == 6
    for name in ("race-centers.jsonl", "race-centers.csv", "race-centers-finals.csv", "race-centers-curves.png"):
        assert (folder / name).stat().st_size > 0
    # Three contestants of the standard contestants, in two processes, on the rows that are there.
    whole = planning.standard_contestants
    few = ("uniform", "recipe, followed density, 10 steps", "recipe from elsewhere, 10 steps")
    monkeypatch.setattr(planning, "standard_contestants", lambda *a, **k: [c for c in whole(*a, **k) if c.name in few])
    assert main(["race", *common[:-2], *recipe, "--quiet", "--workers", "2"]) == 0
    assert "recipe from elsewhere" in capsys.readouterr().out
    standard = load_result(folder / "race-standard.nc")
    assert list(standard["contestant"].values) == list(few)
    assert standard["pilot_seconds"].values[1] > 0
    assert standard["frechet"].notnull().any("evaluation").all()  # every run's end was sampled
    assert Recipe.load(folder / "recipe-digits-followed.json").changes["timesteps"].name == "loss_root"
    rows = (folder / "race-centers.jsonl").read_text()
    monkeypatch.setattr(Race, "_write", lambda self, result: None)
    assert main(["race", *common, "--quiet"]) == 0  # nothing is left to run
    assert (folder / "race-centers.jsonl").read_text() == rows
    for options, message in ((["--force"], "no --force"), (recipe, "race no recipes of others")):
        assert main(["race", *common, *options]) == 2
        assert message in capsys.readouterr().err


def test_options_that_would_do_nothing_are_refused(tmp_path, capsys):
    out = ["--out", str(tmp_path / "recipe.json")]
    ways = (["--density", "followed"], ["--exponent", "3", "--draws", "objective"], ["--measured-momentum"])
    for options in ways:
        for data in ([], ["--data", "digits"]):
            assert main(["recipe", *data, *options, *out]) == 2
            assert "that is for findings of a pilot" in capsys.readouterr().err
    assert not (tmp_path / "recipe.json").exists()
    recipe = tmp_path / "elsewhere.json"
    Recipe.paper().save(recipe)
    for options in (["--contestants", "centers"], ["--recipes", str(recipe)]):
        assert main(["race", "--consistency", *options, "--dry-run"]) == 2
        assert "takes neither --contestants nor --recipes" in capsys.readouterr().err


def test_the_cost_of_asking_what_is_learnt(tmp_path, capsys, monkeypatch):
    for place in ("consistency_lab.studies.cost", "consistency_lab.paper.race.recipe_consistency"):
        monkeypatch.setattr(f"{place}.seconds_per_step", lambda *told: 1.0)
    monkeypatch.setattr(cost, "seconds_per_image", lambda *told: 0.01)
    common = ["--store", str(tmp_path / "runs"), "--out", str(tmp_path / "figures"), "--device", "cpu"]
    assert main(["race", "--consistency", "--dry-run", "--json", *common]) == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    kinds = ("uniform", "uniform, annealed", "recipe")
    assert set(jobs) == {"pilot", *(f"{kind}-s{seed}" for kind in kinds for seed in range(4))}
    assert all(each["training"] > 0 for each in jobs.values())
    assert not (tmp_path / "runs").exists()
