import pytest

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.loading import load, load_all
from consistency_lab.training.train import train


def test_runs_are_found_by_name_path_and_beginning(tmp_path):
    images = load_images("digits").take(range(64), "few")
    model = train(images, network="mlp(width=8, depth=1)", steps=2, batch=8, store=tmp_path, name="one")
    for text in ("one", "on", str(model.folder), model.folder.name):
        assert load(text, store=tmp_path, device="cpu").facts["run"] == model.facts["run"]
    assert load("one", store=tmp_path, weights="raw", name="x").name == "x"
    with pytest.raises(UserError, match="Did you mean 'one'"):
        load("ome", store=tmp_path)
    with pytest.raises(UserError, match="pickle"):
        load("network-snapshot-000100.pkl", store=tmp_path)


def test_models_whose_names_collide_are_told_apart_by_what_differs(tmp_path):
    images = load_images("digits").take(range(64), "few")
    small = {"network": "mlp(width=8, depth=1)", "steps": 2, "batch": 8, "store": tmp_path}
    runs = [train(images, **small, lr=lr, seed=seed) for lr, seed in ((0.01, 0), (0.02, 0), (0.02, 1))]
    folders = [str(model.folder) for model in runs]
    assert [model.name for model in load_all(folders, store=tmp_path)] == [
        "mlp-s0 (lr=0.01)",
        "mlp-s0 (lr=0.02)",
        "mlp-s1",
    ]
    assert [model.name for model in load_all([folders[0]] * 2, store=tmp_path)] == ["mlp-s0"] * 2
    with pytest.raises(UserError, match="fits 2 runs; write the folder's name"):
        load("mlp-s0", store=tmp_path)
