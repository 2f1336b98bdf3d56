"""Completion: the script that docs/command-line.md has a shell read knows commands, their options and the values of these."""

import shutil
import subprocess

import pytest

from consistency_lab.cli import COMMANDS, main

ASK = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_tyro_consistency_lab
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "consistency-lab"
    with pytest.raises(SystemExit) as stopped:
        main(["--tyro-write-completion", "bash", str(path)])
    assert stopped.value.code in (0, None)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], {"-h", "--help", *COMMANDS}),
        (["tr"], {"train", "train-gan", "train-vae"}),
        (["gate", "--m"], {"--metrics", "--margin", "--markdown"}),
        (["train", "--lr"], {"--lr", "--lr-warmup", "--lr-final"}),
        (["study", "--executor", "r"], {"ray"}),
    ],
)
def test_bash_completes_commands_options_and_their_values(script, words, offered):
    asked = ["bash", "-c", ASK, "bash", str(script), "consistency-lab", *words]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered
