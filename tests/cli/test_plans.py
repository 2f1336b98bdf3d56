"""Dry runs: the same facts in tables for people and in JSON for programs."""

import json

import pytest

import consistency_lab as cl
from consistency_lab.cli import COMMANDS, main
from consistency_lab.cli.plans import DryRun, facts_text

FACTS = {
    "models": [
        {"name": "a", "done": True, "settings": {"seed": 0, "network": {"name": "mlp", "width": 16}}, "lr": 0.01, "x": []},
        {"name": "b", "done": False, "settings": {"seed": 1, "network": {"name": "mlp", "width": 16}}, "lr": 0.01, "x": []},
    ],
    "jobs": {"pilot": {"training": 0.0, "evaluation": 2.5}, "uniform": {"training": 10.25, "evaluation": 0.0}},
    "out": "figures",
    "count": None,
    "found": ["one", "two"],
}  # fmt: skip


def leaves(facts):
    """Every word and number of nested facts; names of rows are facts too."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            if isinstance(value, dict) and all(isinstance(inner, dict) for inner in facts.values()):
                yield key
            yield from leaves(value)
    elif isinstance(facts, list):
        for value in facts:
            yield from leaves(value)
    else:
        yield {"None": "none", "True": "yes", "False": "no"}.get(str(facts), str(facts))


def test_a_table_has_a_line_for_each_row_and_says_once_what_all_share():
    assert facts_text(FACTS) == (
        "out    figures\n"
        "count  none\n"
        "found  one, two\n"
        "\n"
        "models:\n"
        "name  done  settings.seed\n"
        "----  ----  -------------\n"
        "a     yes               0\n"
        "b     no                1\n"
        "\n"
        "of all:\n"
        "settings.network.name   mlp\n"
        "settings.network.width  16\n"
        "lr                      0.01\n"
        "x                       none\n"
        "\n"
        "jobs:\n"
        "job      training  evaluation\n"
        "-------  --------  ----------\n"
        "pilot         0.0         2.5\n"
        "uniform     10.25         0.0"
    )
    assert facts_text({}) == ""
    assert facts_text({"name": "low\udcff\n"}) == "name  low\\udcff\\n"


@pytest.fixture
def dry(trained, tmp_path, monkeypatch):
    """Words of a dry run of each command that is quickly told."""
    monkeypatch.chdir(tmp_path)
    two = ["mlp-s0", "mlp-s1", "--store", str(trained)]
    return {
        "demo": [],
        "train": ["--network", "mlp", "--seeds", "0-1"],
        "train-gan": ["--steps", "5"],
        "train-vae": ["--steps", "5", "--seeds", "3,4"],
        "sample": ["mlp-s0", "--store", str(trained)],
        "compare": two,
        "gate": [*two, "--at-least", ".5"],
        "layers": two,
        "snapshots": two,
        "quality": two,
        "predict": ["8"],
        "recipe": [],
        "report": [],
    }


@pytest.mark.parametrize(
    "name", [name for name, kind in COMMANDS.items() if issubclass(kind, DryRun) and name not in ("study", "race", "probe", "reproduce")]
)  # of those the JSON is tested where they are; all say it through `DryRun.say`  # fmt: skip
def test_both_forms_of_a_dry_run_hold_the_same_facts(name, dry, tmp_path, capsys, results):
    words = dry[name]
    if name == "report":
        from consistency_lab.store.results import save_result

        save_result(results.recipe(), tmp_path / "recipe.nc")
        words = [str(tmp_path / "recipe.nc")]
    assert main([name, *words, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main([name, *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not text.startswith("{")
    for each in leaves(facts):
        assert each in text


@pytest.mark.parametrize(
    "words", [["train", "--data", "fashion-mnist"], ["probe", "difficulty", "mlp-s0", "--data", "cifar10"]]
)
def test_a_dry_run_says_what_would_be_fetched_and_fetches_nothing(words, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("fetched"))
    monkeypatch.chdir(tmp_path)
    store = ["--store", str(trained)]
    assert main([*words, *store, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["into"] == f"data/{words[-1]}"
    assert facts["from"].endswith(facts["would_fetch_first"].partition(",")[0])
    assert list(tmp_path.iterdir()) == []


def test_json_without_a_dry_run_is_refused_where_there_is_none(capsys):
    assert main(["train", "--json"]) == 2
    assert "--json is of --dry-run" in capsys.readouterr().err


def test_a_recipe_is_json_too(tmp_path, capsys):
    out = tmp_path / "recipe.json"
    assert main(["recipe", "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reasons"] == list(cl.Recipe.load(out).reasons)
    assert set(told["changes"]) == set(cl.Recipe.paper().changes)
