"""What all rows of a preset would take: every study's own dry run, with clocks that stand still."""

import contextlib
import io

import pytest
import torch

from consistency_lab.cli import main as command_line
from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError
from consistency_lab.paper import tables, why_cost
from consistency_lab.paper.race import dry_run
from consistency_lab.paper.race import plan as planning
from consistency_lab.studies import cost


class Prices:
    """A minute for each probe."""

    def __init__(self, *told):
        pass

    def __getattr__(self, probe):
        return lambda part: 60.0


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run of the command line in this process; steps take a second, sets are noise of the right number and shape."""

    def noise(name, data_dir=None):
        shape = (3, 32, 32) if "cifar10" in name else (1, 8, 8) if name == "digits" else (1, 16, 16)
        count = 1797 if name == "digits" else 60_000
        labels = torch.arange(count) % 10
        pixels = torch.randint(256, (128, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return ImageSet(name, pixels.repeat(-(-count // 128), 1, 1, 1)[:count], labels)

    for module in (tables, planning):
        monkeypatch.setattr(module, "load_images", noise)
    for module in (tables, dry_run, cost):
        monkeypatch.setattr(module, "seconds_per_step", lambda *told: 1.0)
    monkeypatch.setattr(cost, "seconds_per_image", lambda *told: 1.0)
    monkeypatch.setattr(dry_run, "_seconds_to_evaluate", lambda *told: 1.0)
    monkeypatch.setattr(why_cost, "_Prices", Prices)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))  # where the weights of LPIPS would be

    def once(command, quiet):
        assert quiet
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command_line([*command, "--out", str(tmp_path)])
        if status:
            raise UserError(err.getvalue().strip())
        return out.getvalue()

    return once


# How many commands each preset has. The race of "paper" takes half a minute to work out the static twin of 800,000 steps.
FORETOLD = {"digits": 14, "fashion": 16, "fashion-16": 5, "cifar10": 1, "paper": 10}


@pytest.mark.parametrize("preset", [pytest.param(p, marks=pytest.mark.slow) if p == "paper" else p for p in FORETOLD])
def test_every_study_of_a_preset_is_foretold_or_says_what_it_lacks(script, run, capsys, tmp_path, preset):
    module = script("make_results")
    module.main(["--preset", preset, "--store", str(tmp_path / "none"), "--dry-run"], run)
    *lines, total = capsys.readouterr().out.splitlines()
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == FORETOLD[preset]
    for command, said in found.items():
        if command.startswith("study perceptual"):
            assert "needs its trunk's weights" in said
        elif "--consistency" in command:
            assert said == "not foretold"
        else:
            assert float(said.removesuffix(" min")) > 0
    lacking = "study perceptual" in " ".join(found)
    assert ("1 of these commands would take, which lack something" in total) == lacking


def test_nothing_is_begun_where_something_is_lacking(script, run, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        script("make_results").main(["--preset", "cifar10", "--store", str(tmp_path / "none")], run)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "nothing was begun.\n"
