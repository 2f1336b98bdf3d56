"""The README is the manual: what it shows runs, here with less training."""

import functools
import re
from pathlib import Path

import pytest

import consistency_lab as cl

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readme_has_code():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block[:40]))
def test_every_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cl, "train", functools.partial(cl.train, steps=3, batch=16, device="cpu", progress=False))
    exec(compile(block, "README.md", "exec"), {})
    if "report.html" in block:
        assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_commands_exist():
    from consistency_lab.cli import COMMANDS

    named = set(re.findall(r"^consistency-lab ([\w-]+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named <= set(COMMANDS)
    assert {"train", "compare", "probe", "study", "report", "status", "export"} <= named
