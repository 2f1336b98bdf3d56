import json

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.similarity.checks import finite_part
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.trajectories import Trajectories, restricted
from consistency_lab.store.results import provenance

FEW = {"count": 8, "sampler": Sampler(steps=4), "levels": 3}
TIMES = torch.tensor([1.0, 0.5, 0.0])


def walks(*bad, models=3, samples=6):
    """Three noise levels of zeros; ``bad`` are (model, t, sample) that are not finite."""
    estimates = torch.zeros(models, 3, samples, 1, 2, 2)
    for model, t, sample in bad:
        estimates[model, t, sample, 0, 1, 1] = torch.nan if sample % 2 else torch.inf
    return [Trajectories(f"m{k}", x) for k, x in enumerate(estimates)]


def test_nothing_is_lost_where_everything_is_finite():
    kept = finite_part(walks(), TIMES)
    assert kept == ([0, 1, 2], [0, 1, 2, 3, 4, 5], [], "")
    assert restricted(walks(), kept.samples)[0].estimates.shape[1] == 6


def test_bad_samples_are_left_out_for_every_model():
    kept = finite_part(walks((1, 1, 2), (1, 2, 2), (2, 0, 5)), TIMES)
    assert kept.models == [0, 1, 2]
    assert kept.samples == [0, 1, 3, 4]
    assert kept.lost == [{"model": "m1", "t": 0.5, "sample": 2}, {"model": "m2", "t": 1.0, "sample": 5}]
    assert "2 of 6 samples are left out for all models, because m1, m2" in kept.warning
    assert restricted(walks(), kept.samples)[2].estimates.shape == (3, 4, 1, 2, 2)


def test_a_broken_model_is_left_out_instead_of_everybodys_samples():
    kept = finite_part(walks(*((1, 2, i) for i in range(5)), (0, 2, 3)), TIMES)
    assert kept.models == [0, 2]
    assert kept.samples == [0, 1, 2, 4, 5]
    assert "m1 (5 of its samples)" in kept.warning
    assert "because m0 gave" in kept.warning


def test_the_walk_with_other_steps_counts_too():
    kept = finite_part(walks(), TIMES, list(enumerate(walks((2, 2, 4)))))
    assert kept.samples == [0, 1, 2, 3, 5]
    assert kept.lost == [{"model": "m2", "t": None, "sample": 4}]


def test_too_little_left_is_refused():
    with pytest.raises(UserError, match=r"'m0' gives values that are not finite at t = 1 for sample 0, .* 1 models"):
        finite_part(walks(*((k, 0, i) for k in range(2) for i in range(4))), TIMES)
    with pytest.raises(UserError, match="on another grid of times"):
        finite_part(walks(), TIMES, list(enumerate(walks(*((k, 0, i) for k in range(2) for i in range(4))))))


class Faulty(GaussianDenoiser):
    """Breaks down on states whose first pixel is large."""

    def predict(self, x_t, t, alpha, sigma, cond):
        found = super().predict(x_t, t, alpha, sigma, cond)
        bad = x_t[:, 0, 0, 0] > self.limit
        x0 = torch.where(bad.reshape(-1, 1, 1, 1), torch.nan, found.x0)
        return Prediction(found.x_t, found.alpha, found.sigma, x0, found.eps)


def test_the_rest_of_a_comparison_is_as_if_the_lost_samples_had_never_been_asked():
    digits, schedule = load_images("digits").take(range(200), "some"), SCHEDULES.build("linear")
    parts = [digits.all()[:100], digits.all()[100:], digits.all()[50:150]]
    models = [DiffusionModel(f"m{k}", GaussianDenoiser.fit(x, schedule)) for k, x in enumerate(parts)]
    first = SharedNoise(0).initial(range(8), (1, 8, 8))[:, 0, 0, 0]
    lost = int(first.argmax())
    faulty = Faulty.fit(parts[2], schedule)
    faulty.limit = float(first.sort().values[-2:].mean())
    result = compare([*models[:2], DiffusionModel("m2", faulty)], images=digits, **FEW)
    assert result["sample"].values.tolist() == [i for i in range(8) if i != lost]
    assert provenance(result)["samples"] == 7
    assert {place["sample"] for place in provenance(result)["not_finite"]} == {lost}
    assert "1 of 8 samples are left out for all models, because m2" in json.loads(result.attrs["warnings"])[0]
    whole = compare(models, images=digits, **FEW).isel(sample=result["sample"].values)
    for variable in ("distance", "reference_distance", "ceiling", "nearest_distance"):
        np.testing.assert_allclose(result[variable], whole[variable], rtol=1e-5, atol=1e-7)
    assert np.isfinite(result["null"]).all()
