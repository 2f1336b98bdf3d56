"""The command `study`."""

import dataclasses
import json

import pandas as pd
import pytest
import torch

from consistency_lab import presets
from consistency_lab.cli import main
from consistency_lab.paper.plans import SizesPlan
from consistency_lab.paper.race.findings import findings_spec
from consistency_lab.studies import cost
from consistency_lab.training.settings import TrainingSettings


def test_a_study_goes_on_from_its_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "_LONG_ENOUGH", 0.01)
    small = TrainingSettings(network="mlp(width=8, depth=1)", steps=20, batch=16, snapshots=0)
    monkeypatch.setattr(presets, "sizes_plan", lambda preset: SizesPlan("mnist", (4,), (small,), count=8))
    common = ["study", "sizes", "--data", "digits", "--device", "cpu", "--out", str(tmp_path / "figures")]
    assert main([*common, "--store", str(tmp_path / "runs"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"]["mlp(depth=1, width=8), size 4, 6 models"]["training"] >= 0
    assert not list(tmp_path.iterdir())
    assert main([*common, "--store", str(tmp_path / "runs"), "--quiet"]) == 0
    assert "training on" not in capsys.readouterr().out
    folder = tmp_path / "figures" / "digits"
    rows, table = (folder / "sizes.jsonl").read_text(), pd.read_csv(folder / "sizes.csv")
    assert table["size"].tolist() == [4]
    assert main([*common, "--store", str(tmp_path / "none")]) == 0
    assert (folder / "sizes.jsonl").read_text() == rows
    assert not (tmp_path / "none").exists()
    assert main([*common, "--force"]) == 2
    assert "a study has no --force" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["study", "likeness"], ["race"]])
def test_published_sets_are_looked_for_in_the_data_folder(command, tmp_path, capsys):
    place = tmp_path / "fashion-mnist"
    place.mkdir()
    (place / "train-images-idx3-ubyte").write_bytes(b"no images")
    assert main([*command, "--preset", "fashion", "--dry-run", "--data-dir", str(tmp_path)]) == 2
    assert str(place) in capsys.readouterr().err


def test_where_the_files_lie_changes_no_row_of_a_race(tmp_path):
    plan = presets.race_plan("digits")
    moved = dataclasses.replace(plan, data_dir=tmp_path)
    specs = [findings_spec(each.sets()[1], each.pilot, torch.device("cpu")) for each in (plan, moved)]
    assert specs[0] == specs[1]
