"""A committed baseline: what is written is read, what is below fails, what is other is said."""

import json

import pytest

import consistency_lab as cl
from consistency_lab.errors import StoreError
from consistency_lab.gates.baseline import Baseline
from consistency_lab.store.results import provenance


@pytest.fixture
def made(paint):
    return cl.gate(paint("a"), paint("b", noise=0.3), metrics=["mse", "cosine"], at_least=0.5, count=256, early=False)


def test_it_is_read_as_it_was_written(made, tmp_path):
    baseline = Baseline.of(made, 0.02)
    baseline.save(tmp_path / "deep" / "baseline.json")
    assert Baseline.read(tmp_path / "deep" / "baseline.json") == baseline
    written = json.loads((tmp_path / "deep" / "baseline.json").read_text())
    assert written["scores"]["mse"]["value"] == float(made["score"].sel(metric="mse")[-1])
    assert written["scores"]["mse"]["low"] < written["scores"]["mse"]["value"] < written["scores"]["mse"]["high"]
    assert written["facts"]["samples"] == 256
    assert written["facts"]["version of torch"] == provenance(made)["versions"]["torch"]
    assert (written["facts"]["reference"], written["facts"]["candidate"]) == ("a", "b")


def test_the_bound_is_the_estimate_less_the_tolerance_or_the_higher_one(made, paint):
    baseline = Baseline.of(made, 0.02)
    estimate = float(made["score"].sel(metric="mse")[-1])
    a, b = paint("a"), paint("b", noise=0.3)
    held = cl.gate(a, b, baseline=baseline, count=32)
    assert float(held["bound"][0]) == pytest.approx(estimate - 0.02)
    assert float(cl.gate(a, b, baseline=baseline, at_least=0.5, count=32)["bound"][0]) == pytest.approx(estimate - 0.02)
    assert float(cl.gate(a, b, baseline=baseline, at_least=0.99, count=32)["bound"][0]) == 0.99


def test_a_later_gate_fails_only_where_its_upper_end_is_below(made, paint):
    baseline = Baseline.of(made, 0.1)
    a = paint("a")
    assert cl.gate(a, paint("b", noise=0.3), baseline=baseline).attrs["decision"] == "pass"
    worse = cl.gate(a, paint("b", noise=1.0), baseline=baseline)
    assert worse.attrs["decision"] == "fail"
    assert float(worse["score_high"][-1, 0]) < baseline.bound("mse")
    tight = cl.gate(a, paint("b", noise=0.3), baseline=Baseline.of(made, 0.0))
    assert tight.attrs["decision"] == "cannot tell"


def test_other_versions_are_said_and_nothing_fails_for_them(made, paint, tmp_path):
    path = tmp_path / "baseline.json"
    Baseline.of(made, 0.1).save(path)
    same = cl.gate(paint("a"), paint("b", noise=0.3), metrics=["mse", "cosine"], baseline=path, count=256, early=False)
    assert json.loads(same.attrs["warnings"]) == []
    written = json.loads(path.read_text())
    del written["checksum"]
    written["facts"] |= {"version of torch": "1.0", "noise_seed": 7}
    path.write_text(json.dumps(written))
    other = cl.gate(paint("a"), paint("b", noise=0.3), metrics=["mse", "cosine"], baseline=path, count=256, early=False)
    said = json.loads(other.attrs["warnings"])
    assert said[0] == "baseline: noise_seed was 7 and is 0."
    assert "version of torch was 1.0" in said[1]
    assert len(said) == 2
    assert other.attrs["decision"] == same.attrs["decision"] == "pass"


def test_what_is_no_baseline_is_refused(made, paint, tmp_path):
    a, b = paint("a"), paint("b")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "torn.json").write_text('{"a": ')
    for name in ("other.json", "torn.json"):
        with pytest.raises(StoreError, match="is no baseline of a gate"):
            cl.gate(a, b, baseline=tmp_path / name)
    with pytest.raises(cl.UserError, match="no score by ssim"):
        cl.gate(a, b, metrics="ssim(sigma=0.2)", baseline=Baseline.of(made))
    with pytest.raises(cl.UserError, match="the tolerance of a baseline"):
        Baseline.of(made, 2)


def edited(baseline, path, **changes):
    """By a person, who has taken the checksum out."""
    baseline.save(path)
    content = json.loads(path.read_text()) | changes
    del content["checksum"]
    path.write_text(json.dumps(content))
    return path


SCORE = {"value": 0.9, "low": 0.8, "high": 0.95}


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": 10},
        {"tolerance": True},
        {"tolerance": -1},
        {"tolerance": "0.1"},
        {"facts": [1]},
        {"scores": [1]},
        {"scores": {}},
        {"scores": {"mse": SCORE | {"value": float("nan")}}},
        {"scores": {"mse": SCORE | {"value": None}}},
        {"scores": {"mse": SCORE | {"value": 2}}},
        {"scores": {"mse": SCORE | {"value": "0.9"}}},
        {"scores": {"mse": SCORE | {"value": True}}},
        {"scores": {"mse": SCORE | {"low": 0.95, "high": 0.8}}},
        {"scores": {"mse": {"value": 0.9}}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_baseline_that_was_edited_is_refused(made, tmp_path, changes):
    path = edited(Baseline.of(made), tmp_path / "baseline.json", **changes)
    with pytest.raises(StoreError, match="damaged, or was edited"):
        Baseline.read(path)


def test_a_score_that_was_changed_is_no_longer_the_one_that_was_written(made, tmp_path):
    path = tmp_path / "baseline.json"
    Baseline.of(made, 0.1).save(path)
    path.write_text(path.read_text().replace('"tolerance": 0.1', '"tolerance": 0.3'))
    with pytest.raises(StoreError, match="its checksum does not fit"):
        Baseline.read(path)


def test_ends_that_are_not_known_are_no_damage(made, tmp_path):
    path = edited(Baseline.of(made), tmp_path / "b.json", scores={"mse": {"value": -3.0, "low": None, "high": 0.5}})
    assert Baseline.read(path).bound("mse") == pytest.approx(-3.01)


def test_what_is_known_of_both_models_is_kept_and_a_change_said(paint, tmp_path):
    """But not where they lie."""
    path, options = tmp_path / "baseline.json", {"metrics": "mse", "count": 64, "early": False}
    a, b = paint("a"), paint("b", noise=0.1)
    a.facts, b.facts = {"dtype": "float32", "path": "here"}, {"call": {"eta": 1.0}}
    Baseline.of(cl.gate(a, b, at_least=0.5, **options), 0.1).save(path)
    assert json.loads(cl.gate(a, b, baseline=path, **options).attrs["warnings"]) == []
    a.facts, b.facts = {"dtype": "bfloat16", "path": "there"}, {}
    assert json.loads(cl.gate(a, b, baseline=path, **options).attrs["warnings"]) == [
        "baseline: dtype of reference was float32 and is bfloat16.",
        "baseline: call of candidate was eta 1.0 and is not recorded.",
    ]


def test_a_baseline_that_its_own_candidate_cannot_pass_says_so(made):
    low = float(made["score_low"].sel(metric="mse")[-1])
    value = float(made["score"].sel(metric="mse")[-1])
    assert low < value - 0.01
    assert [sentence for sentence in Baseline.of(made, 0.01).out_of_reach(made) if "by mse" in sentence]
    assert Baseline.of(made, 0.5).out_of_reach(made) == []
