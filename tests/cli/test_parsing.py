"""What is said of words that are no command, no option, or none of what a command is of."""

import dataclasses

import pytest

from consistency_lab.cli import main
from consistency_lab.cli.parsing import _said_of_fields, parse
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["snapshot", "a"], "Did you mean 'snapshots'?"),
        (["probe", "dificulty", "a"], "unknown subject of probe 'dificulty'. Did you mean 'difficulty'?"),
        (["study", "likenes"], "Did you mean 'likeness'?"),
        (["list", "netwroks"], "Did you mean 'networks'?"),
    ],
)
def test_the_nearest_name_is_said(words, meant, capsys):
    assert main(words) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "--stepz", "3"], "--steps INT"),
        (["train", "--seed", "3"], "--seeds {None}|STR"),
        (["gate", "a", "b", "--metric", "mse"], "--metrics"),
        (["race", "--recipe", "r.json"], "--recipes"),
    ],
)
def test_the_nearest_option_is_said_of_this_command_alone(words, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(words)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert meant in told
    assert " in consistency-lab " not in told


def test_a_right_subject_with_a_wrong_option_is_no_wrong_subject(capsys):
    with pytest.raises(SystemExit):
        parse(["probe", "difficulty", "--counts", "3"])
    assert "--count" in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown subject"):
        parse(["probe", "mlp-s0"])


def test_settings_keep_every_option_but_the_seed_and_what_is_said_of_it():
    said = _said_of_fields(TrainingSettings)
    assert set(said) == {field.name for field in dataclasses.fields(TrainingSettings)}
    assert said["steps"] == "optimizer steps"
    assert parse(["train", "--lr", "0.5", "--steps", "7"]).settings == TrainingSettings(lr=0.5, steps=7)


def test_a_settings_file_is_found_in_both_spellings_and_keeps_its_seed(tmp_path):
    (tmp_path / "s.json").write_text('{"seed": 5, "steps": 9}')
    for words in (["--config", str(tmp_path / "s.json")], [f"--config={tmp_path / 's.json'}"]):
        assert parse(["train", *words, "--lr", "0.5"]).settings == TrainingSettings(seed=5, steps=9, lr=0.5)
