"""A pair's numbers are its own: neither the order of the list nor its company changes them."""

from itertools import permutations

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen

FEW = {"count": 10, "sampler": Sampler(steps=12), "levels": 5, "shown": 2}
OWN = ("distance", "null", "score", "score_low", "score_high", "pair_log_snr", "residual_score")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(200), "some digits")


@pytest.fixture(scope="module")
def models():
    """Four schedules, each with the Gaussian of other images; ``e`` shares the schedule of ``a``."""
    made = []
    for seed, (name, schedule) in enumerate(zip("abcde", ("linear", "edm", "flow", "cosine", "linear"), strict=True)):
        part = load_images("digits").split(300, 300, seed=seed)[0]
        made.append(DiffusionModel(name, GaussianDenoiser.fit(part.all(), SCHEDULES.build(schedule))))
    return made


class InOneGo:
    """Any generator that is fed images of noise."""

    name, noise_shape, facts = "gan", (1, 8, 8), {}

    def generate(self, noise, indices):
        return torch.tanh(noise.initial(indices, self.noise_shape))


def rows_of(result, first, second):
    names = [f"{first} | {second}", f"{second} | {first}"]
    found = result.sel(pair=next(name for name in names if name in result["pair"].values))
    return {name: found[name].values for name in OWN if name in found}


def assert_same_pairs(one, other):
    """Every pair that both comparisons hold has the same rows in them."""
    both = 0
    for pair in one["pair"].values:
        first, second = str(pair).split(" | ")
        if {first, second} <= set(other["model"].values.tolist()):
            ours, theirs = rows_of(one, first, second), rows_of(other, first, second)
            for name, values in ours.items():
                np.testing.assert_allclose(values, theirs[name], rtol=1e-6, atol=1e-9, err_msg=f"{pair} {name}")
            both += 1
    assert both


def test_every_order_of_two_schedules_gives_the_same_pair(models, digits):
    results = [compare(list(order), images=digits, **FEW) for order in permutations(models[:2])]
    assert_same_pairs(*results)
    np.testing.assert_allclose(results[0]["family_score"], results[1]["family_score"], rtol=1e-6)


def test_orders_and_supersets_of_a_list_change_no_pair(models, digits):
    whole = compare(models, images=digits, **FEW)
    draw = np.random.default_rng(0)
    for size in (2, 3, 5):
        chosen = [models[k] for k in draw.permutation(5)[:size]]
        part = compare(chosen, images=digits, **FEW)
        assert_same_pairs(part, whole)
        for model in chosen:  # and what is said of one model is its own
            for name in ("ceiling", "outside", "spread", "nearest_distance", "reference_distance", "images"):
                np.testing.assert_allclose(
                    part[name].sel(model=model.name), whole[name].sel(model=model.name), rtol=1e-6, atol=1e-9
                )


def test_a_generator_without_a_path_changes_no_images_of_the_others(models):
    alone, beside = compare(models[:3], **FEW), compare([models[2], InOneGo(), models[0], models[1]], **FEW)
    assert beside.sizes["t"] == 1
    assert_same_pairs(alone.isel(t=[-1]), beside)


def test_frozen_states_of_a_pair_are_its_own_too(models, digits):
    whole = compare_frozen(models, digits, count=10, levels=5)
    assert_same_pairs(compare_frozen([models[2], models[0]], digits, count=10, levels=5), whole)


def test_a_pair_starts_where_its_two_schedules_both_reach(models):
    result = compare(models[:2], **FEW)  # linear reaches -10.1, EDM -8.8
    assert float(result["pair_log_snr"][0, 0]) == pytest.approx(-2 * np.log(80.0), abs=1e-9)
    assert float(result["pair_log_snr"][0, -1]) == np.inf
    np.testing.assert_array_equal(result["log_snr"], result["pair_log_snr"].isel(pair=0))
