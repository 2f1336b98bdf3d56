import dataclasses

import pytest

from consistency_lab.contrast.settings import VAESettings
from consistency_lab.errors import UserError
from consistency_lab.paper import tables
from consistency_lab.paper.plans import LikenessPlan, SizesPlan
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.tables import SizesStudy, TableStudy, plan_sets
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings

SMALL = TrainingSettings(network="mlp(width=8, depth=1)", steps=20, batch=16, snapshots=2)
VAE = VAESettings(autoencoder="conv(latent=3, width=4)", steps=20, batch=16, snapshots=0)
PLAN = LikenessPlan(
    "digits",
    297,
    {name: tuple(each.replace(seed=k) for k in range(3)) for name, each in {"mlp": SMALL, "vae": VAE}.items()},
    metrics=("mse",),
    count=8,
    sampler_steps=3,
    quality=False,
    emergence=("mlp",),
    references=("mean",),
)


@pytest.fixture
def timed(monkeypatch):
    """Every step takes a second, and every image a tenth of one."""
    asked = []
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_step", lambda *args: asked.append(args) or 1.0)
    monkeypatch.setattr(tables, "seconds_per_step", lambda *args: asked.append(args) or 1.0)
    monkeypatch.setattr("consistency_lab.studies.cost.seconds_per_image", lambda *args: 0.1)
    return asked


@pytest.mark.parametrize("what", ["likeness", "emergence", "sampling"])
def test_a_study_costs_nothing_once_its_rows_are_there(what, tmp_path, timed):
    said = []
    common = {"rows": Rows(tmp_path / "rows.jsonl"), "say": said.append}
    study = TableStudy(what, PLAN, store=Store(tmp_path / "runs"), **common)
    families = {"mlp", "vae"} if what == "likeness" else {"mlp"}
    before = study.cost()
    assert {name.split("-")[0] for name in before} == families
    assert all(training == 20 and evaluation > 0 for training, evaluation in before.values())
    assert not said
    assert not (tmp_path / "runs").exists()
    table = study.table()
    assert set(table["family"]) == families
    timed.clear()
    again = TableStudy(what, PLAN, store=Store(tmp_path / "none"), **common)
    assert set(again.cost().values()) == {(0.0, 0.0)}
    assert not timed
    assert again.table().to_json() == table.to_json()
    assert not (tmp_path / "none").exists()
    assert (
        TableStudy(what, PLAN, store=Store(tmp_path / "none"), **common, seed=1).cost() == before
    )  # those are other rows


def test_walks_over_training_are_counted_at_every_step(tmp_path, timed):
    study = TableStudy("emergence", PLAN, store=Store(tmp_path / "runs"), rows=Rows(tmp_path / "rows.jsonl"))
    assert study.cost()["mlp-0"] == pytest.approx(
        (20.0, 0.1 * 1 * 8 * 3)
    )  # weights are kept at the end alone: 20 steps are few


def test_sizes_that_are_done_cost_nothing(tmp_path, timed):
    common = {"rows": Rows(tmp_path / "rows.jsonl"), "count": 4}
    one, two = (SizesPlan("digits", sizes, (SMALL.replace(snapshots=0),)) for sizes in ((4,), (4, 8)))
    table = SizesStudy(one, store=Store(tmp_path / "runs"), **common).table()
    assert table["size"].tolist() == [4]
    cost = SizesStudy(two, store=Store(tmp_path / "none"), **common).cost()
    network = "mlp(depth=1, width=8)"
    assert table["network"].tolist() == [network]
    assert cost == {f"{network}, size 4, 6 models": (0.0, 0.0), f"{network}, size 8, 6 models": (120.0, 0.0)}
    assert len(timed) == 1


def test_no_more_is_held_out_than_is_measured_against():
    whole, images, held_out = plan_sets(dataclasses.replace(PLAN, most_held_out=50))
    assert (len(whole), len(images), len(held_out)) == (1797, 1500, 50)
    with pytest.raises(UserError, match="cannot split"):
        plan_sets(dataclasses.replace(PLAN, held_out=1797))
