"""`consistency-lab gate`: exit status and files."""

import json
import xml.etree.ElementTree as ET

import pytest
from painter import Painter
from PIL import Image

from consistency_lab.cli import main
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.store.results import load_result


@pytest.fixture
def gate(trained, tmp_path, monkeypatch):
    models, store = trained
    monkeypatch.chdir(tmp_path)
    names = dict(zip("ab", (str(model.folder) for model in models), strict=True))

    def call(*words):
        given = [names.get(word, word) for word in words]
        return main(["gate", *given, "--store", str(store), "--sampler", "ddim(steps=2)", "--quiet", "--device", "cpu"])

    return call


@pytest.fixture
def undrawn(gate, monkeypatch):
    """The same without figures and report, which take most of the time."""
    monkeypatch.setattr("consistency_lab.cli.gate.write_results", lambda *given: None)
    return gate


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("a a --at-least .95", 0, "pass: "),
        ("a b --at-least .95", 1, "fail: "),
        ("a a --at-least .95 --count 2", 3, "cannot tell: "),
        ("a b --again a --margin .1", 1, "fail: "),
    ],
)
def test_exit_status_is_the_decision(undrawn, capsys, words, status, said):
    assert undrawn(*words.split()) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b"], "--again"),
        (["a"], "a gate is of two, the reference and the candidate, not of 1"),
        (["a", "nobody", "--at-least", ".5"], "nobody"),
        (["a", "b", "--at-least", "95"], "from 0 to below 1"),
        (["a", "b", "--metrics", "psnr", "--at-least", ".5"], "psnr is no distance"),
        (["a", "b", "--baseline", "none.json"], "there is no baseline none.json"),
    ],
)
def test_what_cannot_be_used_ends_in_2_and_leaves_nothing(gate, capsys, tmp_path, words, said):
    assert gate(*words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_written_and_nothing_else_is_where_json_is_expected(gate, tmp_path, capsys):
    words = [
        "--metrics",
        "mse",
        "cosine",
        "--at-least",
        ".9",
        "--junit",
        "ci/gate.xml",
        "--markdown",
        "ci/comment.md",
        "--json",
    ]
    assert gate("a", "b", *words) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["status"] == 1
    assert "report: " in told.err
    assert {path.name for path in (tmp_path / "ci").iterdir()} == {
        "gate.xml",
        "comment.md",
        "comment-worst.png",
    }
    assert ET.parse(tmp_path / "ci" / "gate.xml").getroot().get("failures") in ("1", "2")
    result = load_result(tmp_path / "gate" / "results" / "gate.nc")
    assert result.attrs["decision"] == "fail"
    assert (tmp_path / "gate" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "gate" / "figures" / "gate-looks.png").is_file()


def test_an_earlier_gate_is_written_over_only_by_force(gate, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("consistency_lab.reports.folder.figures_of", lambda result: [])
    assert gate("a", "a", "--at-least", ".9") == 0
    held = (tmp_path / "gate" / "results" / "gate.nc").read_bytes()
    capsys.readouterr()
    assert gate("a", "b", "--at-least", ".9") == 2
    assert "gate holds results already (gate.nc)" in capsys.readouterr().err
    assert (tmp_path / "gate" / "results" / "gate.nc").read_bytes() == held
    assert gate("a", "b", "--at-least", ".9", "--force") == 1
    assert load_result(tmp_path / "gate" / "results" / "gate.nc").attrs["decision"] == "fail"


def test_a_baseline_is_made_of_all_samples_and_held_to(undrawn, tmp_path, capsys):
    assert (
        undrawn("a", "a", "--at-least", "0", "--count", "128", "--write-baseline", "baseline.json", "--tolerance", ".2")
        == 0
    )
    written = json.loads((tmp_path / "baseline.json").read_text())
    assert (written["tolerance"], written["facts"]["samples"]) == (0.2, 128)
    assert undrawn("a", "a", "--baseline", "baseline.json", "--count", "128") == 0
    assert undrawn("a", "b", "--baseline", "baseline.json") == 1
    before = (tmp_path / "baseline.json").read_bytes()
    again = ("a", "b", "--at-least", ".95", "--count", "128", "--write-baseline", "baseline.json")
    assert undrawn(*again) == 2
    assert "holds a baseline already" in capsys.readouterr().err
    assert undrawn(*again, "--force") == 1
    assert (tmp_path / "baseline.json").read_bytes() == before
    assert "is not written: the gate fails" in capsys.readouterr().out


def test_a_dry_run_loads_nothing(gate, tmp_path, capsys):
    assert gate("a", "b", "--at-least", ".5", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["models"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_two_folders_and_a_second_run_need_no_model(undrawn, tmp_path, capsys):
    for name, painter in (("ref", Painter("a")), ("cand", Painter("b", noise=0.1)), ("again", Painter("a"))):
        (tmp_path / name).mkdir()
        images = ((painter.generate(SharedNoise(0), range(300)).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        for number, image in enumerate(images):
            Image.fromarray(image[0]).save(tmp_path / name / f"{number:03}.png")
    assert undrawn("images:ref", "images:cand", "--at-least", ".9", "--markdown", "gate.md") == 0
    assert "pass: cand against ref" in capsys.readouterr().out
    assert undrawn("images:ref", "images:cand", "--at-least", ".9", "--json") == 0
    worst = json.loads(capsys.readouterr().out)["worst"][0]["name"]
    assert f"{int(worst):03}" == worst
    assert undrawn("images:ref", "images:cand", "--again", "images:again", "--margin", ".1") == 0
