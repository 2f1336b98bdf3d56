import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.diffusion.log_snr import passes_again
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import closed_form
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.metrics.distances import METRICS
from consistency_lab.plots import frames
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.parting import add_parting

T = np.array([1.0, 0.75, 0.5, 0.25, 0.0])


def result_of(models=2):
    pairs = [(a, b) for a in range(models) for b in range(a + 1, models)]
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    level = np.array([-4.0, -1.0, 0.0, 1.0, np.inf])
    return xr.Dataset(
        coords={
            "pair": [f"{a} | {b}" for a, b in pairs],
            "first": ("pair", first),
            "second": ("pair", second),
            "t": T,
            "log_snr": ("t", level),
            "pair_log_snr": (("pair", "t"), np.tile(level, (len(pairs), 1))),
            "metric": ["mse"],
        }
    )


def values(means, samples=200, seed=0):
    """Distances ``(..., t, sample, 1)`` around means ``(..., t)``."""
    means = np.asarray(means, dtype=float)[..., None, None]
    return means * np.exp(0.3 * np.random.default_rng(seed).standard_normal((*means.shape[:-2], samples, 1)))


def parted(distance, ceiling, result=None):
    result = result_of() if result is None else result
    result["distance"] = (("pair", "t", "sample", "metric"), distance)
    add_parting(result, {"ceiling_along": ((), ceiling)}, [METRICS.build("mse")])
    return result


def test_the_first_level_from_which_on_the_pair_is_further_apart_than_either_ceiling():
    ceiling = values([[1.0] * 5, [0.5] * 5], seed=1)
    cases = {
        (1, 1, 3, 3, 3): 0.5,
        (3, 1, 1, 1, 3): 0.0,
        (3, 3, 3, 3, 3): 1.0,
        (0.8, 0.8, 0.8, 0.8, 0.8): np.nan,
        (3, 3, 3, 3, 0.7): np.nan,
    }
    for means, t in cases.items():
        found = parted(values([[*means]], seed=2), ceiling)
        np.testing.assert_equal(found["parting_t"].item(), t)
    assert found["ceiling_along"].values[:, 0] == pytest.approx(ceiling.mean((0, 2))[:, 0])


def test_by_hand():
    rng = np.random.default_rng(3)
    distance, ceiling = rng.gamma(2.0, 1.0, (1, 5, 30, 1)), rng.gamma(1.0, 1.0, (2, 5, 30, 1))
    apart = []
    for t in range(5):
        own = ceiling[max((0, 1), key=lambda k: ceiling[k, t].mean()), t, :, 0]
        difference = distance[0, t, :, 0] - own
        apart.append(difference.mean() - 2.045229642132703 * difference.std(ddof=1) / 30**0.5 > 0)
    expected = next((T[k] for k in range(5) if all(apart[k:])), np.nan)
    np.testing.assert_equal(parted(distance, ceiling)["parting_t"].item(), expected)


def test_pairs_that_met_elsewhere_or_have_no_second_run_do_not_part():
    result = result_of()
    result["pair_log_snr"][0, 2] = 0.3
    ceiling = values([[1.0] * 5, [0.5] * 5])
    assert np.isnan(parted(values([[9.0] * 5]), ceiling, result)["parting_t"].item())
    ceiling[0] = np.nan
    assert parted(values([[9.0] * 5]), ceiling)["parting_t"].item() == 1.0
    ceiling[1] = np.nan
    with pytest.warns(RuntimeWarning, match="empty"):
        assert np.isnan(parted(values([[9.0] * 5]), ceiling)["parting_t"].item())


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_twice_the_steps_pass_the_same_levels_but_for_edm(schedule):
    built = SCHEDULES.build(schedule)
    nested = torch.allclose(built.grid(40)[::2], built.grid(20), rtol=1e-9)
    assert passes_again(built, 20) == nested == (schedule != "edm")


def test_a_comparison_says_where_its_pairs_part():
    images = [torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(k)).clamp(-1, 1) for k in (0, 1)]
    models = [
        DiffusionModel(f"g{k}", closed_form("gaussian", each, SCHEDULES.build("linear")))
        for k, each in enumerate(images)
    ]
    found = compare(models, count=40, sampler="ddim(steps=12)", levels=5)
    ends = found["ceiling_along"].isel(t=-1).values
    assert ends == pytest.approx(found["ceiling"].mean(("model", "sample")).values, rel=1e-5)
    table = frames.parting(found, "mse")
    assert table["t"].notna().all()
    assert frames.curves(found, "mse")["group"].isin(["ceiling"]).any()
    again = compare(
        [models[0], DiffusionModel("same", models[0].denoiser)], count=40, sampler="ddim(steps=12)", levels=5
    )
    assert np.isnan(again["parting_t"]).all()
    blocked = compare(models, count=40, sampler="ddim(steps=12)", levels=5, block=10)
    np.testing.assert_array_equal(blocked["parting_t"], found["parting_t"])
