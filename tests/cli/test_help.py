"""What every command says of itself."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import consistency_lab as cl
from consistency_lab.cli import COMMANDS, main
from consistency_lab.training.momentum import MOMENTUM_RULES
from consistency_lab.training.timesteps import TIMESTEPS


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


def test_an_option_of_one_name_is_the_same_everywhere():
    alike = (
        "store",
        "out",
        "seed",
        "seeds",
        "sampler",
        "labels",
        "guidance",
        "data_dir",
        "device",
        "metrics",
        "again",
        "trust",
        "dry_run",
        "json",
        "name",
        "preset",
    )
    for name in alike:
        kinds = {
            str(field.type).removesuffix(" | None")
            for command in COMMANDS.values()
            for field in dataclasses.fields(command)
            if field.name == name
        }
        assert len(kinds) == 1, (name, kinds)
    stores = {command().store for command in COMMANDS.values() if hasattr(command(), "store")}
    samplers = {command().sampler for command in COMMANDS.values() if hasattr(command(), "sampler")}
    assert (len(stores), len(samplers)) == (1, 1)


def test_options_have_the_names_that_python_has():
    """What a command hands to a public function of the package is called as that calls it."""
    for command, function, options in [
        ("train", cl.train, ("store", "device", "force", "name", "recipe", "start")),
        ("train-gan", cl.train_gan, ("store", "device", "force", "name")),
        ("compare", cl.compare, ("count", "metrics", "sampler", "labels", "again")),
        (
            "gate",
            cl.gate,
            ("metrics", "at_least", "margin", "baseline", "again", "count", "batch", "error", "sampler", "labels"),
        ),
        ("recipe", cl.Recipe.from_findings, ("draws", "density", "exponent", "measured_momentum")),
        ("sample", cl.DiffusionModel.guided, ("guidance",)),
        ("sample", cl.DiffusionModel.generate, ("sampler", "labels")),
        ("probe", cl.probe_difficulty, ("count", "seed")),
    ]:
        fields = {field.name for field in dataclasses.fields(COMMANDS[command])}
        for option in options:
            assert option in fields, (command, option)
            assert option in inspect.signature(function).parameters, (function.__qualname__, option)


def test_an_unknown_option_is_status_two():
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--stepz", "3"])
    assert stopped.value.code == 2


def test_the_help_of_training_names_every_density_and_momentum_rule(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for registry in (TIMESTEPS, MOMENTUM_RULES):
        assert [name for name in registry.names() if name not in text] == []
