"""Every two of the models that ship."""

import pytest

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.shipped import shipped_cost, shipped_table
from consistency_lab.presets import shipped_plan
from consistency_lab.zoo import ZOO

FAMILIES = {"mlp": ("fashion-mlp-s0", "fashion-mlp-s1"), "gan": ("fashion-gan-s0", "fashion-gan-s1")}
PROTOCOL = Protocol(metrics=("mse", "cosine"), count=6, sampler=cl.Sampler(steps=2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = Rows(tmp_path_factory.mktemp("shipped") / "rows.jsonl")
    return rows, shipped_table(FAMILIES, rows, PROTOCOL)


def test_a_pair_scores_what_a_comparison_says(made):
    _, table = made
    assert list(zip(table["first"], table["second"], strict=True)) == list(FAMILIES.values())
    assert table["first_family"].tolist() == table["second_family"].tolist() == ["mlp", "gan"]
    assert table["diffusion"].tolist() == [True, False]
    models = [cl.load(f"zoo:{name}", device="cpu") for name in FAMILIES["mlp"]]
    found = cl.compare(models, cl.SharedNoise(0), count=6, metrics=("mse", "cosine"), sampler=cl.Sampler(steps=2))
    last = found.isel(t=-1, pair=0)
    for metric in ("mse", "cosine"):
        for end in ("", "_low", "_high"):
            expected = float(last[f"score{end}"].sel(metric=metric))
            assert table[f"{metric}_score{end}"].iloc[0] == pytest.approx(expected, rel=1e-6)
        assert table[f"{metric}_median_distance"].iloc[0] == pytest.approx(
            float(last["distance"].sel(metric=metric).median())
        )


def test_finished_rows_ask_for_no_sample(made, monkeypatch):
    rows, table = made
    monkeypatch.setattr(Protocol, "compare", lambda *args: pytest.fail("compared again"))
    again = shipped_table(FAMILIES, Rows(rows.path), PROTOCOL)
    assert again.to_json() == table.to_json()


def test_what_is_not_there_is_refused_and_sampling_is_foretold(made):
    rows, _ = made
    with pytest.raises(UserError, match="fashion-mlp-s"):
        shipped_table({"mlp": ("fashion-mlp-s7",)}, rows, PROTOCOL)
    cost = shipped_cost(FAMILIES, PROTOCOL, "cpu")
    assert set(cost) == set(FAMILIES)
    assert all(training == 0 and sampling > 0 for training, sampling in cost.values())


def test_the_plan_has_every_model_of_the_zoo():
    plan = shipped_plan("fashion")
    assert sorted(name for names in plan.shipped.values() for name in names) == sorted(ZOO.names())
    assert plan.jobs == {}
    with pytest.raises(UserError, match="preset"):
        shipped_plan("digits")
