"""What a session on the command line does, one command after another."""

import json

import pytest

from consistency_lab.cli import main
from consistency_lab.reports import folder
from consistency_lab.store.results import load_result


def test_models_are_trained_listed_compared_probed_and_reported(trained, tmp_path, capsys, monkeypatch):
    assert main(["status", "--store", str(trained)]) == 0
    assert capsys.readouterr().out.count("done") == 2
    common = ["--store", str(trained), "--quiet", "--device", "cpu"]
    out = tmp_path / "comparison"
    assert (
        main(
            [
                "compare",
                "mlp-s0",
                "mlp-s1",
                *common,
                "--count",
                "16",
                "--sampler",
                "ddim(steps=5)",
                "--metrics",
                "mse",
                "--data",
                "digits",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "0." in capsys.readouterr().out
    assert load_result(out / "results" / "comparison.nc").sizes["sample"] == 16
    for name in ("report.html", "report.json", "report.md", "results/comparison.csv"):
        assert (out / name).stat().st_size > 100
    assert {p.suffix for p in (out / "figures").iterdir()} >= {".png", ".pdf", ".csv"}
    # Each probe draws its figures; the page with all of them is drawn once, at the end.
    pages, page = [], folder.report
    monkeypatch.setattr(folder, "report", lambda results, path, title: pages.append(path))
    probed = {"difficulty": 1, "structure": 2, "landscape": 2, "connectivity": 2}
    for what, models in probed.items():
        names = ["mlp-s0", "mlp-s1"][:models]
        assert main(["probe", what, *names, *common, "--count", "8", "--out", str(tmp_path / what)]) == 0
        assert load_result(tmp_path / what / "results" / f"{what}-mlp-s0.nc").attrs["kind"] == what
        assert list((tmp_path / what / "figures").glob("*.png"))
        assert pages[-1] == tmp_path / what / "report.html"
    assert "gradient noise" in capsys.readouterr().out  # the table of definitions
    command = ["probe", "landscape", "--plane", "mlp-s0", *common, "--count", "2", "--out", str(tmp_path / "plane")]
    assert main(command) == 0
    assert load_result(tmp_path / "plane" / "results" / "plane-mlp-s0.nc").sizes["x"] == 15
    monkeypatch.setattr(folder, "report", page)
    held = [str(tmp_path / what / "results") for what in ("comparison", *probed)]
    assert main(["report", *held, "--out", str(tmp_path / "all.html")]) == 0
    assert (tmp_path / "all.html").exists()


def test_published_sets_are_looked_for_in_the_data_folder_that_is_named(trained, tmp_path, capsys):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"no images")
    for command in (
        ["train", "--dry-run"],
        ["probe", "difficulty", "mlp-s0", "--store", str(trained), "--out", str(tmp_path / "p")],
    ):
        assert main([*command, "--data", "mnist", "--data-dir", str(tmp_path)]) == 2
        assert str(tmp_path / "mnist") in capsys.readouterr().err


def test_dry_runs_do_nothing(tiny, trained, tmp_path, capsys):
    assert main(["train", *tiny, "--seeds", "0,5", "--store", str(trained), "--dry-run", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["done"] for model in models] == [True, False]
    assert all(model["parameters"] > 0 for model in models)
    assert main(["demo", "--dry-run", "--json", "--out", str(tmp_path / "demo")]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "digits"
    assert (
        main(
            [
                "compare",
                "mlp-s0",
                "mlp-s1",
                "--store",
                str(trained),
                "--dry-run",
                "--json",
                "--out",
                str(tmp_path / "c"),
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["network_evaluations"] == 2 * 256 * 150
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("probe", "work"),
    [
        (["curvature", "mlp-s0"], "products with the hessian of all samples"),
        (["difficulty", "mlp-s0"], "noise levels"),
        (["structure", "mlp-s0", "mlp-s1"], "sampling steps of 4 images"),
        (["landscape", "mlp-s0", "mlp-s1"], "gradients of all samples"),
        (["landscape", "mlp-s0", "--plane"], "losses of all samples"),
        (["connectivity", "mlp-s0", "mlp-s1"], "training steps"),
    ],
)
def test_a_dry_run_of_a_probe_says_what_it_would_cost(probe, work, trained, tmp_path, capsys):
    out = ["--count", "4", "--store", str(trained), "--out", str(tmp_path / "probe"), "--dry-run", "--json"]
    assert main(["probe", *probe, *out]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = {row["what"]: row for row in said["work"]}
    assert rows[work]["at_most"] > 0
    seconds = sum(row["at_most"] * row["seconds_each"] for row in said["work"])
    assert said["minutes"] == pytest.approx(seconds / 60, abs=0.006, rel=0.02)
    if probe[0] == "curvature":
        assert rows[work]["at_most"] == (4 + 3) * 25 + 24
    assert list(tmp_path.iterdir()) == []
