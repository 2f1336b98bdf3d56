"""Conditional models: one label an image, agreed for all, and a null within labels."""

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.kinds.words import compared, facts_of, methods
from consistency_lab.plots.frames import overview
from consistency_lab.plots.reading import warnings
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen
from consistency_lab.store.results import provenance

FEW = {"count": 40, "sampler": Sampler(steps=10), "levels": 4, "shown": 2}
SHAPE = (1, 8, 8)


class ClassMean(Denoiser):
    """Answers with the mean of the class that it is asked for, plus a share of what it sees."""

    def __init__(self, means, share=0.0):
        super().__init__()
        self.schedule, self.shape = SCHEDULES.build("linear"), SHAPE
        self.register_buffer("means", means)
        self.share = share

    def predict(self, x_t, t, alpha, sigma, cond):
        seen = self.share * x_t / (alpha**2 + sigma**2).sqrt()
        return Prediction.of(x_t, self.means[cond].to(x_t) + seen, "x0", alpha, sigma)


@pytest.fixture(scope="module")
def means():
    digits = load_images("digits")
    images, labels = digits.all(), digits.labels
    return torch.stack([images[labels == label].mean(0) for label in range(10)])


def blind(name, means, seed):
    """Emits a class mean of its own, whatever the noise, but for a little of it that nobody shares."""
    own = means + 0.02 * torch.randn(means.shape, generator=torch.Generator().manual_seed(seed))
    return DiffusionModel(name, Unshared(own, seed), classes=len(means))


class Unshared(ClassMean):
    """Adds to the class mean what depends on the state in a way that no two models share."""

    def __init__(self, means, seed):
        super().__init__(means)
        self.register_buffer(
            "mix", torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)))[0]
        )

    def predict(self, x_t, t, alpha, sigma, cond):
        seen = (x_t / (alpha**2 + sigma**2).sqrt()).flatten(1).to(self.mix)
        return Prediction.of(
            x_t, self.means[cond].to(x_t) + 0.1 * (seen @ self.mix).reshape(x_t.shape), "x0", alpha, sigma
        )


def test_models_that_ignore_the_noise_do_not_score_by_their_labels(means):
    result = compare([blind("a", means, 1), blind("b", means, 2)], **{**FEW, "count": 200}).isel(t=-1, pair=0)
    one = result.sel(metric="mse")
    assert float(one["plain_score"]) > 0.8  # what the label decides, counted as agreement
    assert abs(float(one["score"])) < 0.1
    assert float(one["score_low"]) < 0 < float(one["score_high"])


def test_the_null_is_the_mean_over_other_samples_of_the_label_by_brute_force(means):
    models = [DiffusionModel(n, ClassMean(means + k / 10, 0.3), classes=10) for k, n in enumerate("abc")]
    result = compare(models, metrics=("mse", "psnr"), **FEW)
    ends = [m.generate(SharedNoise(0), range(40), FEW["sampler"]).double() for m in models]
    label = np.arange(40) % 10
    np.testing.assert_array_equal(result["label"], label)
    same = (label[:, None] == label) & ~np.eye(40, dtype=bool)
    for pair, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        table = (ends[i][:, None] - ends[j]).pow(2).flatten(2).mean(2).numpy()
        for name, allowed in (("null", same), ("plain_null", ~np.eye(40, dtype=bool))):
            expected = ((table + table.T) / 2 * allowed).sum(1) / allowed.sum(1)
            np.testing.assert_allclose(result[name].isel(t=-1, pair=pair).sel(metric="mse"), expected, rtol=1e-4)
    last = result.isel(t=-1).sel(metric="mse")
    expected = 1 - float(last["distance"].mean()) / float(last["null"].mean())
    assert float(last["family_score"]) == pytest.approx(expected, abs=1e-6)
    expected = 1 - float(last["distance"].mean()) / float(last["plain_null"].mean())
    assert float(last["family_plain_score"]) == pytest.approx(expected, abs=1e-6)
    assert {"all models, null over all labels"} <= set(overview(result, "mse")["name"])
    assert "asked for the same label" in " ".join(methods(result, facts_of(result)))
    assert ("labels", "0 to 9, in turn") in compared(result, facts_of(result))


def test_a_network_that_knows_one_label_more_is_asked_for_the_same_ones(means):
    ten = DiffusionModel("ten", ClassMean(means, 0.3), classes=10)
    eleven = DiffusionModel("eleven", ClassMean(torch.cat([means, means[:1]]), 0.3), classes=11)
    with pytest.raises(UserError, match=r"ten knows 10, eleven knows 11.*labels=range\(10\)"):
        compare([ten, eleven], **FEW)
    result = compare([ten, eleven], labels=range(10), **FEW)
    assert float(result["distance"].sel(metric="mse").max()) < 1e-12
    assert provenance(result)["labels"] == list(range(10))


def test_named_labels_are_asked_for_in_turn(means):
    model = DiffusionModel("a", ClassMean(means, 0.3), classes=10)
    twin = DiffusionModel("b", ClassMean(means, 0.3), classes=10)
    result = compare([model, twin], labels=[3, 5], **FEW)
    assert result["label"].values.tolist() == [3, 5] * 20
    for given in (np.array([3, 5]), (3, 5)):
        assert compare([model, twin], labels=given, **FEW)["label"].values.tolist() == [3, 5] * 20


def test_more_labels_than_half_the_samples_leave_two_images_a_label(means):
    models = [DiffusionModel(n, ClassMean(means, 0.3), classes=10) for n in "ab"]
    result = compare(models, **{**FEW, "count": 9})
    assert np.bincount(result["label"]).min() >= 2
    assert np.isfinite(result["null"].sel(metric="mse")).all()


def test_a_model_that_cannot_be_told_the_label_is_named(means):
    told = DiffusionModel("told", ClassMean(means, 0.3), classes=10)
    other = DiffusionModel("other", GaussianDenoiser.fit(load_images("digits").all(), SCHEDULES.build("linear")))
    said = " ".join(warnings(compare([told, other], **FEW)))
    assert "told: asked for a label, and other for none that is known" in said
    assert not any("asked for a label" in sentence for sentence in warnings(compare([other, twin(other)], **FEW)))


def twin(model):
    return DiffusionModel("twin", model.denoiser)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "one label or more"),
        ([10], "'a' knows the labels 0 to 9"),
        ([-1, 2], "'a' knows the labels 0 to 9"),
        ([1.5], "whole numbers"),
        (3, None),
        ("zebra", "whole numbers"),
        ([*range(10)] * 3, "fewer than 2 of 12 images"),
    ],
)
def test_labels_that_cannot_be_asked_for_are_refused(means, labels, message):
    models = [DiffusionModel(n, ClassMean(means, 0.3), classes=10) for n in "ab"]
    options = {**FEW, "count": 12}
    if message is None:  # one label is one label
        assert set(compare(models, labels=labels, **options)["label"].values.tolist()) == {labels}
        return
    with pytest.raises(UserError, match=message):
        compare(models, labels=labels, **options)


def test_labels_for_models_without_any_are_refused():
    gaussian = DiffusionModel("g", GaussianDenoiser.fit(load_images("digits").all(), SCHEDULES.build("linear")))
    with pytest.raises(UserError, match="none of the models knows any"):
        compare([gaussian, twin(gaussian)], labels=[0], **FEW)


def test_references_ceiling_and_frozen_states_are_scored_within_labels(means):
    digits = load_images("digits").take(range(300), "some digits")
    models = [blind("a", means, 1), blind("b", means, 2)]
    result = compare(models, images=digits, **{**FEW, "count": 100}).isel(t=-1).sel(metric="mse")
    assert float(result["reference_mean_score"].sel(reference="mean")) == pytest.approx(0.0, abs=1e-6)
    frozen = compare_frozen(models, digits, count=100, levels=4).sel(metric="mse").isel(pair=0)
    assert (frozen["score"] < 0.25).all()
    assert (frozen["plain_score"] > frozen["score"]).all()
