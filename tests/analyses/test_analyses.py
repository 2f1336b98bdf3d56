"""Each script on the rows that lie in figures/: it draws its figure, writes its data, and says a sentence with numbers in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_ROWS = ["consistency_table", "similarity_along_t", "parametrisation", "streams"]


def run(name, *arguments):
    command = [sys.executable, str(ROOT / "analyses" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize("name", WITH_ROWS)
def test_a_script_leaves_a_figure_its_data_and_a_sentence(tmp_path, name):
    done = run(name, "--preset", "digits", "--rows", ROOT / "figures", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d+ \[-?\d", done.stdout)
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds >= {".png", ".pdf", ".csv"}


def test_rows_that_are_missing_end_in_one_sentence_that_names_their_command(tmp_path):
    done = run("consistency_table", "--preset", "digits", "--rows", tmp_path, "--out", tmp_path)
    assert done.returncode != 0
    assert "consistency-lab study likeness --preset digits" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
