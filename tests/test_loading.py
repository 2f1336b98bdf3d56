import pytest

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.loading import load
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
