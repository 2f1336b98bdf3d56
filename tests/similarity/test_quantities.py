"""A metric is what the result says of it, never what its name suggests."""

import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.kinds.words import facts_of, methods
from consistency_lab.metrics.distances import METRICS
from consistency_lab.metrics.pixels import MeanSquaredError, PeakSignalToNoise
from consistency_lab.plots import frames, reading, similarity
from consistency_lab.reports.html import report
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.permutation import family_test
from consistency_lab.similarity.quantities import higher_is_alike, is_scored, note_of, unit_of
from consistency_lab.store.results import load_result, save_result

FEW = {"count": 12, "sampler": Sampler(steps=5), "levels": 3, "shown": 2, "ceiling": False}


class Decibels(PeakSignalToNoise):
    name, note = "decibels", "our PSNR under a name of its own"


class Unscored(MeanSquaredError):
    name, scored = "raw-mse", False


@pytest.fixture(scope="module")
def result():
    """Two families of four: Gaussians of the darker and of the brighter digits."""
    digits = load_images("digits").all()
    order = digits.flatten(1).mean(1).argsort()
    models = []
    for family, part in (("a", order[:700]), ("b", order[-700:])):
        for k in range(4):
            chosen = part[torch.randperm(700, generator=torch.Generator().manual_seed(k))[:400]]
            denoiser = GaussianDenoiser.fit(digits[chosen], SCHEDULES.build("linear"))
            models.append(DiffusionModel(f"{family}{k}", denoiser))
    return compare(models, metrics=["mse", "psnr", Decibels(), Unscored()], **FEW)


def test_direction_unit_note_and_scoring_are_the_metrics_own(result, tmp_path):
    save_result(result, tmp_path / "r.nc")
    for ds in (result, load_result(tmp_path / "r.nc"), result.sel(metric=["decibels", "raw-mse"])):
        for metric, kind in (("decibels", Decibels()), ("raw-mse", Unscored())):
            assert higher_is_alike(ds, metric) is (kind.better == "higher")
            assert is_scored(ds, metric) is kind.scored
            assert (unit_of(ds, metric), note_of(ds, metric)) == (kind.unit, kind.note)


def test_a_similarity_is_turned_round_whatever_it_is_called(result):
    test = family_test(result, ["a0", "a1", "a2", "a3"]).isel(t=-1)
    assert float(test["p"].sel(metric="decibels")) == float(test["p"].sel(metric="psnr")) == pytest.approx(1 / 35)
    assert float(test["statistic"].sel(metric="decibels")) > 0


@pytest.mark.parametrize(("metric", "alike"), [("decibels", True), ("raw-mse", False)])
def test_what_is_not_scored_has_no_score_and_no_null_of_zero(result, metric, alike):
    table = frames.overview(result, metric)
    assert table["score"].isna().all()
    assert "robust" not in set(table["group"])
    assert ("higher is more alike" in reading.quantity(result, metric)) is alike
    assert "never scored" in reading.why_undefined(result, metric)
    assert any(
        metric.upper() in sentence and "never scored" in sentence for sentence in methods(result, facts_of(result))
    )
    axis = similarity.scores(result, metric).axes[0]
    assert "consistency score" not in axis.get_xlabel()


def test_the_report_says_the_note(result, tmp_path):
    report([result.sel(metric=["decibels"])], tmp_path / "page.html")
    assert "decibels: our PSNR under a name of its own" in (tmp_path / "page.md").read_text("utf-8")


def test_results_of_versions_without_these_coordinates_are_still_read():
    ds = xr.Dataset(coords={"metric": ["mse", "psnr"]}, attrs={"units_psnr": "dB", "note_mse": "halved"})
    assert [higher_is_alike(ds, m) for m in ("mse", "psnr")] == [False, True]
    assert [is_scored(ds, m) for m in ("mse", "psnr")] == [True, False]
    assert (unit_of(ds, "psnr"), unit_of(ds, "mse"), note_of(ds, "mse")) == ("dB", "units not recorded", "halved")


def test_every_registered_metric_says_what_it_is():
    for name in METRICS.names():
        if name.startswith(("lpips", "sscd", "classifier")):
            continue  # they need weights
        metric = METRICS.build(name)
        assert metric.better in ("lower", "higher")
        assert metric.unit
        assert np.isin(metric.scored, [True, False])
