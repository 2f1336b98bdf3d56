import pytest

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.paper import sizes as module
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.sizes import size_sweep
from consistency_lab.similarity.prediction import OWN, predict_consistency
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings

SETTINGS = TrainingSettings.of(network="mlp(width=128, depth=2)", steps=400, batch=64, snapshots=0)


def test_small_sets_are_copied_and_large_ones_less(tmp_path, monkeypatch):
    digits = load_images("digits")
    rows = Rows(tmp_path / "rows.jsonl")
    options = {"seeds": 3, "count": 24, "sampler": Sampler(steps=12)}
    table = size_sweep(digits, [8, 600], SETTINGS, Store(tmp_path / "runs"), rows, **options).set_index("size")
    assert table.loc[8, "copies"] > 0.2 > table.loc[600, "copies"]
    assert table.loc[8, "nearest_own"] < 0.6 * table.loc[8, "nearest_other"]
    assert table.loc[600, "nearest_own"] > 0.8 * table.loc[600, "nearest_other"]
    assert (table["between_low"] <= table["between"]).all()
    theory = predict_consistency(digits, [8, 600], times=[0.0], count=0).sel(states=OWN).isel(t=0)
    for end in ("", "_low", "_high"):
        assert table[f"predicted{end}"].tolist() == theory[f"score{end}"].values.tolist()
    for name in ("gaussian", "local", "optimal"):
        assert (table[f"explained_{name}_low"] < table[f"explained_{name}"]).all()
        assert (table[f"residual_after_{name}"] <= 1).all()
    monkeypatch.setattr(module, "train_fleet", lambda *_, **__: pytest.fail("trained twice"))
    again = size_sweep(
        digits, [8, 600], SETTINGS, Store(tmp_path / "elsewhere"), Rows(tmp_path / "rows.jsonl"), **options
    )
    assert again.set_index("size").equals(table)


def test_impossible_sizes_are_refused(tmp_path):
    digits = load_images("digits").take(range(100), "few")
    for sizes, seeds, message in (
        ([60], 3, "cannot be cut"),
        ([1], 3, "cannot be cut"),
        ([10], 2, "at least three seeds"),
    ):
        with pytest.raises(UserError, match=message):
            size_sweep(digits, sizes, SETTINGS, Store(tmp_path), Rows(tmp_path / "r.jsonl"), seeds=seeds)
