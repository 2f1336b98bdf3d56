"""What is said of results beside a comparison: their controls, warnings and caveats stand in the report with the numbers."""

import json

import pytest

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.interop.generator import wrap_generator
from consistency_lab.kinds.registry import KINDS, kind_of
from consistency_lab.reports.html import report
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen
from consistency_lab.similarity.quality import measure_quality
from consistency_lab.similarity.representations import compare_representations
from consistency_lab.similarity.reproducibility import measure_reproducibility
from consistency_lab.similarity.snapshots import compare_snapshots
from consistency_lab.training.train import train

SMALL = {"network": "mlp(width=16, depth=1)", "steps": 50, "batch": 32, "snapshots": 2, "device": "cpu"}
SAMPLER = "ddim(steps=3)"


def plain(images):
    return images.flatten(1)


def generator(name, mean):
    return wrap_generator(lambda noise: mean + 0.1 * noise, shape=(1, 2, 2), name=name)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    digits = load_images("digits").take(range(100), "some digits")
    store = tmp_path_factory.mktemp("runs")
    models = [train(digits, seed=seed, store=store, progress=False, **SMALL) for seed in range(2)]
    along = compare(models, count=8, sampler=SAMPLER, levels=3)
    images = ImageSet("gaussians", 0.1 * SharedNoise(5).initial(range(60), (1, 2, 2)))
    pair = [generator("a", 0.5), generator("b", 0.5)]  # alike whatever the noise
    return {
        "frozen comparison": compare_frozen(models, digits, count=8, along=along),
        "representations": compare_representations(models, digits, times=(0.3,), count=8),
        "reproducibility": measure_reproducibility(pair, plain, images, count=10),
        "quality": measure_quality(pair, images, plain, count=30),
        "snapshots": compare_snapshots(models, images=digits, count=4, sampler=SAMPLER),
    }


SAID = {
    "frozen comparison": ("mlp-s0 | mlp-s1, t = 1", "Asked about the same states"),
    "representations": ("the input itself", "other inputs", "linear CKA, unbiased"),
    "reproducibility": (
        "other noise (null)",
        "Warning: 100% of images from other noise count as copies",
        "features plain",
    ),
    "quality": ("other real images (control)", "owed to their number", "do not compare"),
    "snapshots": ("Snapshots of one run are not independent models", "with the Gaussian denoiser"),
}


@pytest.mark.parametrize("kind", SAID)
def test_the_page_says_what_the_numbers_are_read_against(kind, results, tmp_path):
    path = report([results[kind]], tmp_path / "page.html")
    page, numbers = (
        path.with_suffix(".md").read_text("utf-8").replace("\\", ""),
        json.loads(path.with_suffix(".json").read_text("utf-8")),
    )
    for text in SAID[kind]:
        assert text in page
    assert numbers["results"][0]["kind"] == kind
    assert numbers["results"][0]["rows"]


@pytest.mark.parametrize("kind", SAID)
def test_a_kind_has_a_figure_and_a_sentence_with_an_interval(kind, results):
    speaks = kind_of(results[kind])
    assert type(speaks) is KINDS.builder(kind)
    for drawing in speaks.figures(results[kind]):
        assert drawing.alt
        assert len(drawing.frame)
    sentence = speaks.sentence(results[kind])
    assert "[" in sentence
    assert "nan" not in sentence


def test_without_a_comparison_there_is_no_drift(results):
    ds = results["frozen comparison"]
    alone = ds.drop_vars([name for name in ds.data_vars if name.startswith(("drift", "along"))])
    assert "no drift is known" in kind_of(alone).sentence(alone)
