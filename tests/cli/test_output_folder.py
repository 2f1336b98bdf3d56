"""The folder that a command writes its results to: one command at a time."""

import subprocess
import sys

import pytest

from consistency_lab.cli import main
from consistency_lab.cli.common import claim_folder, release_folders
from consistency_lab.errors import UserError

HOLD = """
import sys
from pathlib import Path
from consistency_lab.cli.common import claim_folder
claim_folder(Path(sys.argv[1]), False)
print("held", flush=True)
input()
"""


def test_a_second_command_is_refused_until_the_first_has_ended_or_was_killed(tmp_path):
    out = tmp_path / "deep" / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        for force in (False, True):
            with pytest.raises(UserError, match=r"another command is making results for .*--out"):
                claim_folder(out, force)
        other.kill()
    claim_folder(out, False)
    release_folders()


def test_a_command_that_writes_nothing_leaves_no_folder_and_one_that_does_no_lock(tmp_path, trained, undrawn, capsys):
    out = tmp_path / "deep" / "out"
    names = [
        "--store",
        str(trained),
        "--device",
        "cpu",
        "--count",
        "4",
        "--metrics",
        "mse",
        "--quiet",
        "--out",
        str(out),
    ]
    assert main(["compare", "mlp-s0", "mlp-s1", *names, "--guidance", "2"]) == 2
    assert "labels" in capsys.readouterr().err
    assert not out.parent.exists()
    assert main(["compare", "mlp-s0", "mlp-s1", *names, "--sampler", "ddim(steps=2)"]) == 0
    assert (out / "results" / "comparison.nc").is_file()
    assert not (out / ".lock").exists()
