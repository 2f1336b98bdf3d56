"""What every command says of itself."""

import dataclasses
import subprocess
import sys

import pytest

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
