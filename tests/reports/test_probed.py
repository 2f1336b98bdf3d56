import json

import pytest

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.structure import probe_structure
from consistency_lab.reports.html import report
from consistency_lab.studies.connectivity import probe_connectivity
from consistency_lab.training.train import train


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    images, held_out = load_images("digits").split(1500, 200, seed=0)
    wiener = DiffusionModel("<wiener>", GaussianDenoiser.fit(images.all(), SCHEDULES.build("linear")))
    settings = {"network": "unet(width=8, groups=4)", "batch": 8, "steps": 2, "device": "cpu", "progress": False}
    pair = [train(images, seed=seed, **settings) for seed in (0, 1)]
    quick = {"sampler": Sampler("ddim", 4)}
    results = [
        probe_connectivity(*pair, images, held_out, count=4, bins=2, points=3, steps=2, samples=4, **quick),
        probe_structure(wiener, images, count=4, levels=3, **quick),
        probe_difficulty(wiener, images, count=8, bins=4),
    ]
    return report(results, tmp_path_factory.mktemp("report") / "report.html")


def test_the_page_shows_the_sections_in_order_with_their_tables(written):
    page = written.read_text(encoding="utf-8")
    heads = ["How hard is each timestep?", "Which noise level decides the image?", "Do they share a basin?"]
    places = [page.index(head) for head in heads]
    assert places == sorted(places)
    assert page.count("<svg") == 5  # error, definitions, agreement, levels, paths
    assert "&lt;wiener&gt;" in page
    assert "<wiener>" not in page
    for words in (
        "half of the image is known",
        "barrier, straight line",
        "defined for the MLP, not for UNet",
        "KL rate",
    ):
        assert words in page


def test_the_numbers_are_beside_the_page(written):
    text = written.with_suffix(".json").read_text(encoding="utf-8")
    hard, levels, joined = json.loads(text)["results"]
    assert [hard["kind"], levels["kind"], joined["kind"]] == ["difficulty", "structure", "connectivity"]
    assert {row["definition"] for row in hard["definitions"]} >= {"eps error", "KL rate", "information"}
    assert len(hard["rank_correlations"]) == 7 * 6 / 2
    assert {row["what"] for row in levels["switches"]} >= {"noise swapped", "half of mse known"}
    assert [row["path"] for row in joined["barriers"]] == ["straight line", "trained curve"]
    assert joined["numbers"]["consistency_low"] <= joined["numbers"]["consistency"]
    markdown = written.with_suffix(".md").read_text(encoding="utf-8")
    assert "| barrier, trained curve |" in markdown
    assert "## Which noise level decides the image?" in markdown
