"""The full demo and the folder that it writes to: its own goes on, and no other is written over."""

import dataclasses

import pytest

from consistency_lab.cli import main
from consistency_lab.errors import UserError
from consistency_lab.presets import demo_plan


@pytest.fixture
def demo(monkeypatch):
    """The demo with a plan of models of these names, which ends where it begins to train."""

    def call(out, names, *words):
        runs = dict.fromkeys(names, demo_plan("digits").runs["mlp-s3"])
        plan = dataclasses.replace(demo_plan("digits"), runs=runs, pilot=names[0])
        with monkeypatch.context() as within:
            within.setattr("consistency_lab.presets.demo_plan", lambda preset: plan)
            within.setattr("consistency_lab.studies.demo.run_demo", begun)
            assert main(["demo", "--out", str(out), "--device", "cpu", *words]) == 2

    def begun(*_, **__):
        raise UserError("it has begun.")

    return call


def test_a_demo_goes_on_in_its_own_folder_and_in_no_other(demo, trained, undrawn, tmp_path, capsys):
    out, names = tmp_path / "out", ["mlp-s0", "mlp-s1"]
    words = ["--count", "4", "--metrics", "mse", "--sampler", "ddim(steps=2)", "--quiet", "--device", "cpu"]
    assert main(["compare", *names, "--store", str(trained), "--out", str(out), *words]) == 0
    said = capsys.readouterr

    demo(out, names)  # a comparison of models that are kept elsewhere
    assert "out holds results already (comparison.nc)" in said().err
    (out / "runs").mkdir()
    demo(out, names)
    assert "it has begun" in said().err
    for others in ([*names, "mlp-s2"], ["unet-s0", "mlp-s1"]):
        demo(out, others)
        assert "holds results already" in said().err
    demo(out, names, "--seed", "1")
    assert "holds results already" in said().err
    demo(out, names, "--seed", "1", "--force")
    assert "it has begun" in said().err
