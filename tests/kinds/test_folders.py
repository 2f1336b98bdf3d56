"""Folders of images: a sample has one name, its file's, and nothing is said of a noise that nobody knows of."""

import json

import numpy as np
import pytest
from PIL import Image

import consistency_lab as cl
from consistency_lab.cli.common import print_headline
from consistency_lab.kinds.comparison import Comparison
from consistency_lab.kinds.gallery import gallery
from consistency_lab.plots import frames
from consistency_lab.reports.html import report
from consistency_lab.similarity.named import sample_name, sample_names

WORST = "im_09"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 3))
    for name in ("ref", "cand"):
        (root / name).mkdir()
        for i, image in enumerate(images):
            apart = 40 if f"im_{i:02d}" == WORST else 4
            pixels = image + (rng.normal(0, apart, image.shape) if name == "cand" else 0)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"im_{i:02d}.png")
    return cl.compare([cl.load(f"images:{root / name}") for name in ("ref", "cand")], metrics=("mse",))


def test_the_worst_sample_has_its_files_name_everywhere(compared, tmp_path, capsys):
    number = int(compared["worst_sample"].isel(t=-1).sel(metric="mse"))
    assert sample_name(compared, number) == WORST != str(number)
    drawn = {each.name: each for each in Comparison().figures(compared)}
    assert drawn["differences"].frame["name"].iloc[0] == WORST
    assert any(WORST in ax.get_title(loc="left") + ax.get_title() for ax in drawn["differences"].figure.axes)
    assert f"sample {WORST} alone" in json.loads(compared.attrs["warnings"])[0]
    assert f"The worst sample, {WORST}, holds" in Comparison().numbers(compared)["metrics"]["mse"]["worst"]
    assert set(gallery(compared).samples) <= set(sample_names(compared).values())
    assert set(frames.distribution(compared, "mse").index) == {f"im_{i:02d}" for i in range(12)}
    page = report([compared], tmp_path / "r.html").read_text(encoding="utf-8")
    assert f'<th scope="col">{WORST}<br>' in page
    assert f'<th scope="col">{number}<br>' not in page
    print_headline(compared)
    said = capsys.readouterr().out
    assert said.startswith("\nComparison of ref, cand\n")
    assert f"sample {WORST} alone" in said


def test_nothing_is_said_of_a_noise(compared, tmp_path):
    assert "other place (null)" in set(frames.overview(compared, "mse")["name"])
    page = report([compared], tmp_path / "r.html", title="t").read_text(encoding="utf-8")
    assert "In the same place, the mse" in page
    for said in ("From the same noise", "different noise", "noise 0", ">noise<", "noise images", "other noise (null)"):
        assert said not in page


def test_samples_without_a_name_keep_their_numbers(results):
    ds = results.comparison(2, samples=12, nearest=False, references=False)
    assert sample_names(ds.assign_coords(sample=[*range(11), 40]))[40] == "40"
    assert gallery(ds).of == "noise"
