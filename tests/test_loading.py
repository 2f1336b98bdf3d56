from pathlib import Path

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.loading import load, load_all
from consistency_lab.pipelines.recording_files import save_recording
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
    assert [model.name for model in load_all([folders[0]] * 2, store=tmp_path)] == ["mlp-s0", "mlp-s0 (2)"]
    with pytest.raises(UserError, match="fits 2 runs; write the folder's name"):
        load("mlp-s0", store=tmp_path)


def folder(path):
    """A folder, or an array file, of four images."""
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        np.save(path, pixels) if path.suffix == ".npy" else np.savez(path, images=pixels)
    else:
        path.mkdir()
        np.save(path / "images.npy", pixels)
    return str(path)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["images:run1/out", "images:run2/out"], ["out (run1)", "out (run2)"]),
        (["images:a/x/run/out", "images:a/y/out"], ["out (x/run)", "out (y)"]),
        (["images:out", "images:out/out"], ["out", "out (out)"]),
        (["images:out", "images:out/"], ["out", "out (2)"]),
        (["images:out"] * 3, ["out", "out (2)", "out (3)"]),
        (["images:out", "images:out?order=sorted"], ["out", "out (order=sorted)"]),
        (["images:i.npy?range=0,255", "images:i.npy"], ["i.npy (range=0,255)", "i.npy"]),
        (
            ["images:run1/out", "images:run1/out?order=sorted", "images:run2/out"],
            ["out (run1)", "out (run1, order=sorted)", "out (run2)"],
        ),
        (["images:run1/out", "images:run1/out", "images:run2/out"], ["out (run1)", "out (run1, 2)", "out (run2)"]),
        (["images:run1/out?name=a", "images:run2/out?name=a"], ["a (run1)", "a (run2)"]),
        (["images:out", "images:run2/out?name=out (2)", "images:out"], ["out", "out (2)", "out (3)"]),
        (["trajectory:r.npz", "trajectory:r.safetensors"], ["r (.npz)", "r (.safetensors)"]),
        (["trajectory:r.npz?space=pixels", "trajectory:r.npz"], ["r (space=pixels)", "r"]),
        (["trajectory:r.npz", "images:out?name=r"], ["r (trajectory)", "r (images)"]),
        (["images:out", "images:other"], ["out", "other"]),
    ],
)
def test_addresses_whose_names_collide_are_told_apart_by_what_differs(tmp_path, monkeypatch, texts, names):
    monkeypatch.chdir(tmp_path)
    for path in ("run1/out", "run2/out", "a/x/run/out", "a/y/out", "out", "out/out", "other", "i.npy"):
        if path != "out/out" or "images:out/out" in texts:
            folder(Path(path))
    steps = {"latents": torch.zeros(2, 4, 1, 2, 2), "images": torch.zeros(4, 1, 2, 2), "times": torch.tensor([1.0, 0])}
    for path in ("r.npz", "r.safetensors"):
        save_recording(path, steps, {}, {})
    assert [model.name for model in load_all(texts)] == names
