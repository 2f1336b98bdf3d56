"""Class-conditional families over scales of guidance."""

import pytest
import torch

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.paper.guidance import guided
from consistency_lab.paper.plans import LikenessPlan
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.tables import TableStudy
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings

SMALL = TrainingSettings(network="mlp(width=8, depth=1)", steps=20, batch=16, snapshots=0)
SCALES = (1.0, 3.0)
GUIDED = LikenessPlan(
    "digits",
    297,
    {
        name: tuple(each.replace(seed=k) for k in range(3))
        for name, each in {"plain": SMALL, "labels": SMALL.replace(conditional=True)}.items()
    },
    metrics=("mse",),
    count=40,
    sampler_steps=3,
    quality=False,
    crosses=False,
    references=("mean",),
    scales=SCALES,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guidance")
    return TableStudy("guidance", GUIDED, store=Store(folder / "runs"), rows=Rows(folder / "rows.jsonl"))


def test_conditional_families_are_one_at_every_scale(study):
    assert [family.name for family in study.families] == ["plain", "labels, scale 1", "labels, scale 3"]
    identities = [each for family in study.families for each in family.identities]
    assert len(set(identities)) == 9
    table = study.table()
    assert table["family"].tolist() == ["plain", "labels, scale 1", "labels, scale 3"]
    assert table["mse_score"].notna().all()
    assert not table["mse_score"].duplicated().any()


def test_guidance_at_scale_1_is_the_model_as_it_is(study):
    _, once, thrice = (family.models()[0] for family in study.families)
    plain = study.fleet.family("labels", ["labels-0"]).models()[0]
    made = [model.generate(SharedNoise(0), range(4), labels=[0, 1, 2, 3]) for model in (plain, once, thrice)]
    assert torch.allclose(made[0], made[1], atol=1e-5)
    assert not torch.allclose(made[0], made[2], atol=1e-2)


def test_every_scale_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_step", lambda *args: 1.0)
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_image", lambda *args: 0.1)
    found = TableStudy("guidance", GUIDED, store=Store(tmp_path / "runs"), rows=Rows(tmp_path / "rows.jsonl")).cost()
    assert found["labels-0"][1] == pytest.approx(2 * len(SCALES) * found["plain-0"][1])
    assert found["labels-0"][0] == found["plain-0"][0] == 20


def test_what_is_not_guided_is_refused(study):
    plain = guided(study.families[0], 2.0)
    assert plain.name == "plain, scale 2"
    with pytest.raises(UserError, match="'plain-0' has no labels to be guided by"):
        plain.models()


def test_the_plan_of_digits_has_both_kinds():
    from consistency_lab.presets import guidance_plan

    plan = guidance_plan("digits")
    assert isinstance(plan, LikenessPlan)
    kinds = {name: {each.conditional for each in models} for name, models in plan.families.items()}
    assert kinds == {"unet": {False}, "mlp": {False}, "unet, labels": {True}, "mlp, labels": {True}}
    assert all(isinstance(each, TrainingSettings) for models in plan.families.values() for each in models)
