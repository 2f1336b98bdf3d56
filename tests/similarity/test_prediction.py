"""What is predicted of linear denoisers is what `compare` and `compare_frozen` measure of them."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import consistency_lab as cl
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.kinds.registry import KINDS, kind_of
from consistency_lab.plots.prediction import prediction_frame
from consistency_lab.reports.html import report
from consistency_lab.similarity.prediction import OWN, SAME_STATES

LINEAR = cl.SCHEDULES.build("linear")


@pytest.fixture(scope="module")
def digits():
    return cl.load_images("digits")


@pytest.fixture(scope="module")
def predicted(digits):
    return cl.predict_consistency(digits, [32, 400])


def denoisers(digits, n, seed):
    halves = zip("ab", digits.split(n, n, seed=seed), strict=True)
    return [cl.DiffusionModel(name, GaussianDenoiser.fit(half.all(), LINEAR)) for name, half in halves]


def estimates(model, noise, levels):
    """What the exact flow of a linear denoiser, started where noise hides the data, estimates of x0 at each level: ``(T, N, pixels)``."""
    fitted = model.denoiser
    gains = fitted.variances / (fitted.variances + levels[:, None] ** 2).sqrt().clamp_min(1e-9)
    return fitted.mean + (noise.double().flatten(1) @ fitted.axes * gains[:, None]) @ fitted.axes.T


def distance_and_null(a, b):
    """Mean squared distances ``(T,)`` of the same samples, and of all pairs of different ones."""
    apart, count = torch.cdist(a, b).square() / a.shape[-1], a.shape[1]
    same = apart.diagonal(dim1=1, dim2=2).mean(1)
    return same, (apart.sum((1, 2)) / count - same) / (count - 1)


@pytest.mark.parametrize("n", [32, 400])
def test_linear_denoisers_of_digits_agree_as_predicted(digits, predicted, n):
    """Over seventy pairs of disjoint sets, by the exact flow; digits are far from Gaussian."""
    noise = cl.SharedNoise(0).initial(range(128), digits.shape)
    levels = LINEAR.noise_to_signal(torch.tensor(predicted["t"].values))
    pairs, apart = [], []
    for seed in range(70):
        a, b = (estimates(model, noise, levels) for model in denoisers(digits, n, seed))
        pairs.append(torch.stack(distance_and_null(a, b)))
        apart.append((a[-1] - b[-1]).square().mean(1))
    distance, null = torch.stack(pairs).mean(0).numpy()
    theory = predicted.sel(n=n).isel(sample=slice(128))
    expected = [theory[f"sample_{name}"].mean("sample").values for name in ("distance", "null")]
    np.testing.assert_allclose(distance, expected[0], rtol=0.06)
    np.testing.assert_allclose(null, expected[1], rtol=0.06)
    score = 1 - distance / null
    np.testing.assert_allclose(score, theory["score"].sel(states=OWN), atol=0.025)
    assert abs(score[-1] - theory["score"].sel(states=OWN)[-1]) < 0.01
    # Which noise is hard is known beforehand.
    assert spearmanr(torch.stack(apart).mean(0), theory["sample_distance"].isel(t=-1))[0] > 0.9


@pytest.mark.parametrize("n", [32, 400])
def test_that_flow_is_what_compare_measures(digits, predicted, n):
    """At the same levels and times; DDIM's 50 steps fall short of the flow by a part of each distance."""
    models, noise = denoisers(digits, n, 0), cl.SharedNoise(0)
    found = cl.compare(models, noise, count=64, metrics=("mse",), ceiling=False, shown=1)
    for name in ("t", "log_snr"):
        np.testing.assert_allclose(found[name], predicted[name])
    levels = LINEAR.noise_to_signal(torch.tensor(found["t"].values))
    exact = [estimates(model, noise.initial(range(64), digits.shape), levels) for model in models]
    distance, null = (each.numpy() for each in distance_and_null(*exact))
    one = found.isel(pair=0, metric=0)
    np.testing.assert_allclose(one["score"], 1 - distance / null, atol=0.02)
    np.testing.assert_allclose(one["null"].mean("sample"), null, rtol=0.13)


@pytest.mark.parametrize("n", [32, 400])
def test_asked_about_the_same_states_they_agree_as_predicted(digits, n):
    found = [
        cl.compare_frozen(denoisers(digits, n, seed), digits, count=64, metrics=("mse",), levels=5)
        for seed in range(12)
    ]
    theory = cl.predict_consistency(digits, n, times=found[0]["t"].values, count=0).sel(states=SAME_STATES, n=n)
    assert "sample_distance" not in theory
    distance, null = (
        np.mean([ds[name].isel(pair=0, metric=0).mean("sample") for ds in found], 0) for name in ("distance", "null")
    )
    np.testing.assert_allclose(1 - distance / null, theory["score"], atol=0.04)


def test_parts_make_the_whole(digits, predicted):
    pixels = predicted.sizes["component"]
    for name in ("distance", "null"):
        np.testing.assert_allclose(predicted[f"component_{name}"].sum("component"), pixels * predicted[name], rtol=1e-5)
    np.testing.assert_allclose(predicted["score"], 1 - predicted["distance"] / predicted["null"])
    np.testing.assert_allclose(predicted["variance"].sum(), digits.all().flatten(1).double().var(0, correction=0).sum())
    assert (np.diff(predicted["variance"]) <= 0).all()
    assert predicted["component_score"].isel(component=-1).isnull().all()  # a pixel that is always black
    image = predicted.sel(states=OWN).isel(t=-1)
    np.testing.assert_allclose(image["null"], 2 * predicted["variance"].sum() / pixels, rtol=1e-9)
    many = cl.predict_consistency(digits, 32, times=[0.4, 0.0], count=20_000).sel(n=32)
    for name in ("distance", "null"):
        np.testing.assert_allclose(many[f"sample_{name}"].mean("sample"), many[name].sel(states=OWN), rtol=0.01)


def test_a_denoiser_of_few_images_shrinks_too_much(predicted):
    level = np.exp(-predicted["log_snr"])
    assert (predicted["kappa"] >= level).all()
    assert (predicted["kappa"].sel(n=32) >= predicted["kappa"].sel(n=400)).all()
    variance, kappa = predicted["variance"], predicted["kappa"].isel(t=slice(-1))
    gain = predicted["gain"].isel(t=slice(-1)).sel(states=SAME_STATES)
    np.testing.assert_allclose(gain, (variance / (variance + kappa)).transpose(*gain.dims), rtol=1e-5)
    assert (predicted["gain"] <= predicted["ideal_gain"] * (1 + 1e-5)).all()


def test_it_depends_on_mean_and_covariance_alone(digits):
    order = np.random.default_rng(0).permutation(len(digits)).tolist()
    turned = cl.predict_consistency(digits.take(order, "turned"), 50, times=[0.5, 0.0])
    mirrored = cl.ImageSet("mirrored", -digits.all())
    for other in (turned, cl.predict_consistency(mirrored, 50, times=[0.5, 0.0])):
        same = cl.predict_consistency(digits, 50, times=[0.5, 0.0])
        np.testing.assert_allclose(other["score"], same["score"], rtol=1e-9)
        np.testing.assert_allclose(other["sample_distance"], same["sample_distance"], rtol=1e-4)
    levels = -torch.tensor([2.0, 0.5], dtype=torch.float64).log() * 2
    scores = [
        cl.predict_consistency(digits, 50, times=schedule.time_from_log_snr(levels).tolist(), schedule=schedule)[
            "score"
        ]
        for schedule in (LINEAR, cl.SCHEDULES.build("flow"))
    ]
    np.testing.assert_allclose(scores[0].values, scores[1].values, rtol=1e-6)


def test_a_prediction_is_a_kind_of_result(digits, predicted, tmp_path):
    cl.save_result(predicted, tmp_path / "p.nc")
    again = cl.load_result(tmp_path / "p.nc")
    assert again.identical(predicted)
    speaks = kind_of(again)
    assert type(speaks) is KINDS.builder("prediction")
    sentence = speaks.sentence(again)
    assert "0.742 [0.7, 0.78] for n = 32, 0.981 [0.978, 0.984] for n = 400; interval: 95 % of pairs" in sentence
    table = prediction_frame(again.sel(n=400))  # a selection is made whole
    row = table[(table["quantity"] == "score") & (table["states"] == OWN) & (table["t"] == 0)]
    assert row["value"].item() == float(predicted["score"].sel(states=OWN, n=400)[-1])
    path = report([predicted], tmp_path / "page.html")
    assert "trained networks: averages over pairs of disjoint sets" in path.with_suffix(".md").read_text("utf-8")
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["results"][0]["rows"]
    (drawing,) = speaks.figures(predicted)
    assert len(drawing.figure.axes[0].get_lines()) == 3  # two sizes and zero


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n is a whole number of 2 or more, not 1"),
        ({"n": []}, "n is a number of images or several different ones"),
        ({"n": [8, 8]}, "n is a number of images or several different ones"),
        ({"n": "8"}, "n is a whole number, not '8'"),
        ({"n": 8, "times": [2.0]}, "leaves"),
        ({"n": 8, "times": []}, "times are given as a list of noise levels"),
        ({"n": 8, "times": "early"}, "times are given as a list of noise levels"),
        ({"n": 8, "schedule": "liner"}, "linear"),
        ({"n": 8, "noise": 3}, "noise"),
        ({"n": 8, "count": -1}, "count"),
        ({"n": 8, "images": "digits"}, "load_images"),
        ({"n": 8, "images": cl.ImageSet("grey", torch.zeros(9, 1, 2, 2))}, "do not differ"),
        ({"n": 8, "images": cl.ImageSet("one", torch.zeros(1, 1, 2, 2))}, "at least two images"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(digits, options, message):
    with pytest.raises(cl.UserError, match=message) as caught:
        cl.predict_consistency(**{"images": digits, **options})
    assert len(str(caught.value).splitlines()) == 1
