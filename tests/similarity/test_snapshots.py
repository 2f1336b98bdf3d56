import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.snapshots import compare_snapshots
from consistency_lab.training.train import kept_steps, load_snapshots, train

SMALL = {"network": "mlp(width=16, depth=1)", "steps": 100, "batch": 32, "snapshots": 3, "device": "cpu"}
SAMPLER = "ddim(steps=4)"


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(200), "some digits")


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    store = tmp_path_factory.mktemp("snapshots")
    return [train(digits, seed=seed, store=store, progress=False, **SMALL) for seed in range(3)]


def test_a_run_goes_to_its_final_model(runs):
    found = compare_snapshots(runs[:1], count=16, sampler=SAMPLER)
    assert found["step"].values.tolist() == kept_steps(runs[0]) == [25, 50, 100]
    assert found["to_final"].dims == ("model", "step", "metric")
    assert (found["to_final"].isel(step=-1) == 1).all()
    assert (found["to_final"].isel(step=0) < found["to_final"].isel(step=1)).all()
    assert (found["to_final_low"].isel(step=0) < found["to_final"].isel(step=0)).all()
    assert "pair" not in found.dims
    assert "not independent" in found.attrs["note"]
    assert "this pair" in found.attrs["interval"]
    assert "family_interval" not in found.attrs


def test_every_step_is_a_comparison_of_the_snapshots(runs):
    found = compare_snapshots(runs, count=12, sampler=SAMPLER, metrics=["mse", "psnr"])
    at = [dict(load_snapshots(run, [50]))[50] for run in runs]
    last = [dict(load_snapshots(run, [100]))[100] for run in runs]
    own = compare(at, count=12, sampler=SAMPLER, metrics=["mse"], ceiling=False).isel(t=-1).sel(metric="mse")
    one = found.sel(step=50, metric="mse")
    for ours, theirs in (
        ("between", "score"),
        ("between_low", "score_low"),
        ("family_score", "family_score"),
        ("family_score_low", "family_score_low"),
        ("family_score_high", "family_score_high"),
    ):
        assert np.allclose(one[ours], own[theirs], atol=1e-5), ours
    final = compare([at[1], last[1]], count=12, sampler=SAMPLER, metrics=["mse"], ceiling=False).isel(t=-1)
    assert one["to_final"].isel(model=1).item() == pytest.approx(final["score"].item(), abs=1e-5)
    ratio = one["to_final_distance"] / one["to_final_null"]
    assert np.allclose(one["to_final"], 1 - ratio)
    assert found["to_final"].sel(metric="psnr").isnull().all()
    assert found["to_final_distance"].sel(metric="psnr", step=25).notnull().all()


def test_order_changes_nothing(runs):
    there, back = (compare_snapshots(each, count=8, sampler=SAMPLER) for each in (runs, runs[::-1]))
    for name in ("family_score", "family_score_low"):
        assert np.allclose(there[name], back[name], atol=1e-6)
    assert np.allclose(there["to_final"], back["to_final"].sel(model=there["model"]))


def test_runs_of_two_schedules_meet_at_equal_levels(digits, runs, tmp_path):
    other = train(digits, seed=5, store=tmp_path, schedule="cosine", progress=False, **SMALL)
    found = compare_snapshots([runs[0], other], count=8, sampler=SAMPLER, metrics=["mse"])
    at = [dict(load_snapshots(run, [25]))[25] for run in (runs[0], other)]
    own = compare(at, count=8, sampler=SAMPLER, metrics=["mse"], ceiling=False)["score"].isel(t=-1)
    assert found["between"].sel(step=25).item() == pytest.approx(own.item(), abs=1e-5)


def test_references_are_those_of_a_comparison(digits, runs):
    found = compare_snapshots(runs[:2], images=digits, count=8, sampler=SAMPLER, metrics=["mse"])
    at = [dict(load_snapshots(run, [100]))[100] for run in runs[:2]]
    own = compare(at, count=8, sampler=SAMPLER, metrics=["mse"], images=digits, ceiling=False).isel(t=-1)
    wanted = own["reference_mean_score"].sel(reference=["gaussian", "optimal"])
    assert np.allclose(found["reference_score"].isel(step=-1), wanted, atol=1e-5)


def test_a_step_that_exploded_is_left_out_and_named(digits, tmp_path):
    run = train(digits, seed=0, store=tmp_path, progress=False, **SMALL)
    (file,) = run.folder.glob("snapshots/step-0000050*")
    save_file({name: torch.full_like(x, torch.nan) for name, x in load_file(file).items()}, file)
    found = compare_snapshots([run], SharedNoise(0), count=4, sampler=SAMPLER)
    assert found["step"].values.tolist() == [25, 100]
    first = json.loads(found.attrs["warnings"])[0]
    assert first == "left out, since images of a snapshot are not finite there: step 50."


def test_bad_input_is_one_sentence(digits, runs, tmp_path):
    unkept = train(digits, progress=False, **{**SMALL, "steps": 2})
    none = train(digits, store=tmp_path, progress=False, **{**SMALL, "steps": 2, "snapshots": 0})
    longer = train(digits, store=tmp_path, progress=False, **{**SMALL, "steps": 125})
    for models, options, message in [
        ([], {}, "one run or more"),
        (runs[:1], {"count": 1}, "two samples or more, not of 1 and 1"),
        ([unkept], {}, "trained without a store"),
        ([none], {}, "kept no weights along the way; train it with snapshots=12"),
        ([runs[0], longer], {}, "for different numbers of steps"),
        (runs[:1], {"images": "digits"}, "images are given as an image set"),
        (["mlp-s0"], {}, "a str is no model"),
    ]:
        with pytest.raises(UserError, match=message):
            compare_snapshots(models, **options)
