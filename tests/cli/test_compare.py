"""The command `compare`."""

import json

from consistency_lab.cli import main
from consistency_lab.store.results import load_result


def test_models_of_one_name_are_compared_under_names_that_differ_and_warnings_are_printed(
    tiny, trained, tmp_path, capsys, undrawn
):
    assert main(["train", *tiny, "--lr", "0.01", "--store", str(trained.parent / "more")]) == 0
    folders = [str(next(store.glob("model-mlp_s0*"))) for store in (trained, trained.parent / "more")]
    common = ["--quiet", "--device", "cpu", "--count", "8", "--sampler", "ddim(steps=4)", "--metrics", "mse"]
    data = ["--data", "digits(size=8)", "--out", str(tmp_path / "c")]
    assert main(["compare", *folders, *common, *data]) == 0
    out = capsys.readouterr().out
    assert "mlp-s0 (lr=0.002) | mlp-s0 (lr=0.01)" in out
    assert "Warning: mlp-s0 (lr=0.002):" in out  # 30 steps are not a trained model
    assert "other images" not in out
    assert main(["report", str(tmp_path / "c"), "--out", str(tmp_path / "r.html"), "--dry-run"]) == 0
    assert "comparison.nc" in capsys.readouterr().out


def test_another_set_and_guidance_without_labels_are_said(tiny, trained, tmp_path, capsys, undrawn):
    names = ["compare", "mlp-s0", "mlp-s1", "--store", str(trained), "--device", "cpu"]
    few = ["--count", "4", "--sampler", "ddim(steps=3)", "--metrics", "mse", "--force", "--out", str(tmp_path / "c")]
    assert main([*names, *few, "--data", "gaussian(size=8, count=100)"]) == 0
    assert "trained on other images than 'gaussian" in capsys.readouterr().out
    assert main([*names, *few, "--guidance", "2"]) == 2
    assert "--guidance needs class-conditional models" in capsys.readouterr().err
    conditional = ["train", *tiny, "--conditional", "--name", "known", "--store", str(trained.parent / "labels")]
    assert main(conditional) == 0
    known = str(next((trained.parent / "labels").glob("model-known*")))
    assert main([*names[:2], known, *names[3:], *few, "--guidance", "2"]) == 0
    printed = capsys.readouterr()
    assert "no guidance for mlp-s0, trained without labels" in printed.err
    assert "mlp-s0 | known-cfg2" in printed.out


def test_clipping_is_an_option_and_recorded(trained, tmp_path, capsys, undrawn):
    names = [
        "compare",
        "mlp-s0",
        "mlp-s1",
        "--store",
        str(trained),
        "--device",
        "cpu",
        "--count",
        "4",
        "--metrics",
        "mse",
    ]
    for options, clip, steps in [
        (["--sampler", "ddim(steps=3)"], False, 3),
        (["--sampler", "ddim(clip=True, steps=4)"], True, 4),
    ]:
        assert main([*names, *options, "--out", str(tmp_path / "c"), "--force"]) == 0
        sampler = json.loads(load_result(next((tmp_path / "c").rglob("comparison.nc"))).attrs["provenance"])["sampler"]
        assert (sampler["clip"], sampler["steps"]) == (clip, steps)
    assert main([*names, "--out", str(tmp_path / "c")]) == 2
    assert "c holds results already (comparison.nc); name another folder with --out" in capsys.readouterr().err
    assert main([*names, "--sampler", "ddim(klip=True)", "--out", str(tmp_path / "c")]) == 2
    assert "Did you mean 'clip'" in capsys.readouterr().err
