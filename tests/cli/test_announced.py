"""What `compare` says beforehand of the memory that it will take."""

import json

import pytest

from consistency_lab.cli import main


def test_a_dry_run_says_it(trained, capsys):
    names = ["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--dry-run", "--json"]
    said = []
    for count in ("100", "1000000"):
        assert main([*names, "--count", count]) == 0
        said.append(json.loads(capsys.readouterr().out)["peak_memory"])
    assert said[0].split()[1] == "MiB"
    assert 1 <= float(said[0].split()[0]) < 100
    assert said[1].split()[1] == "GiB"
    assert "samples at a time" in said[1]


def test_a_long_comparison_begins_with_a_line_and_a_short_one_does_not(trained, monkeypatch, capsys, tmp_path):
    class Enough(Exception):
        pass

    def compared(*_, **__):
        raise Enough

    monkeypatch.setattr("consistency_lab.similarity.compare.compare", compared)
    names = ["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--device", "cpu", "--out", str(tmp_path / "c")]
    for free, count, line in (
        (None, "100", ""),
        (2**20, "100", "0.00 GiB are free"),
        (None, "1000000", "samples at a time"),
    ):
        monkeypatch.setattr("consistency_lab.inputs.free_memory", lambda free=free: free)
        with pytest.raises(Enough):
            main([*names, "--count", count])
        said = capsys.readouterr().err
        assert ("this takes up to" in said) == bool(line)
        assert line in said
