"""What all rows of a preset would take: every study's own dry run, with clocks that stand still."""

import pytest
import torch

from consistency_lab.cli import main as command_line
from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError
from consistency_lab.paper import tables, why_cost
from consistency_lab.paper.race import study
from consistency_lab.studies import cost


class Prices:
    """A minute for each probe."""

    def __init__(self, *told):
        pass

    def __getattr__(self, probe):
        return lambda part: 60.0


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """A run of the command line in this process; steps take a second, sets are black pictures of the right number and shape."""

    def black(name, data_dir=None):
        shape = (3, 32, 32) if "cifar10" in name else (1, 8, 8) if name == "digits" else (1, 16, 16)
        count = 1797 if name == "digits" else 11_000
        labels = torch.arange(count) % 10
        return ImageSet(name, torch.zeros(1, *shape, dtype=torch.uint8).expand(count, *shape), labels)

    for module in (tables, study):
        monkeypatch.setattr(module, "load_images", black)
    for module in (tables, study, cost):
        monkeypatch.setattr(module, "seconds_per_step", lambda *told: 1.0)
    monkeypatch.setattr(cost, "seconds_per_image", lambda *told: 1.0)
    monkeypatch.setattr(study, "_seconds_to_evaluate", lambda *told: 1.0)
    monkeypatch.setattr(why_cost, "_Prices", Prices)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))  # where the weights of LPIPS would be

    def once(command, quiet):
        assert quiet
        capsys.readouterr()
        status = command_line([*command, "--out", str(tmp_path)])
        out, err = capsys.readouterr()
        if status:
            raise UserError(err.strip())
        return out

    return once


@pytest.mark.parametrize("preset", ["digits", "fashion", "cifar10", "paper"])
def test_every_study_of_a_preset_is_foretold_or_says_what_it_lacks(script, run, monkeypatch, capsys, tmp_path, preset):
    said = []
    monkeypatch.setattr("builtins.print", lambda line, **told: said.append(line) if told.get("flush") else print_(line, **told))
    module = script("make_results")
    module.main(["--preset", preset, "--store", str(tmp_path / "none"), "--dry-run"], run)
    lines = dict(line.rsplit(": ", 1) for line in said[:-1])
