import json

import numpy as np
import pytest
import xarray as xr

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.recipe import FLOOR, Recipe
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import BINS, TIMESTEPS, total_variation

T = (np.arange(20) + 0.5) / 20


def difficulty(profile, samples=50):
    error = np.sqrt(profile)[:, None] * np.ones((20, samples))
    stack = np.stack([error, error, error])
    return xr.Dataset(
        {"error": (("units", "t", "sample"), stack)},
        coords={"units": ["eps", "x0", "v"], "t": T},
        attrs={"kind": "difficulty", "model": "pilot"},
    )


def landscape(roughness):
    return xr.Dataset(attrs={"kind": "landscape", "roughness": roughness})


def masses(recipe):
    settings = recipe.apply(TrainingSettings())
    return TIMESTEPS.build(settings.timesteps, SCHEDULES.build("linear"), 1000).masses(0)


def test_a_peak_in_difficulty_is_a_peak_in_density():
    recipe = Recipe.from_findings(difficulty(np.exp(-0.5 * ((T - 0.7) / 0.1) ** 2)))
    assert masses(recipe).argmax() / BINS == pytest.approx(0.7, abs=0.04)
    t, density = zip(*recipe.density, strict=True)
    assert t[int(np.argmax(density))] == pytest.approx(0.7, abs=0.04)
    assert sum(density) / 20 == pytest.approx(1.0)
    assert min(density) >= FLOOR * 0.99


def test_flat_difficulty_is_uniform():
    assert total_variation(masses(Recipe.from_findings(difficulty(np.ones(20)))), np.full(BINS, 1 / BINS)) < 0.02


def test_the_density_is_the_root_of_the_second_moment():
    profile = np.linspace(1.0, 0.04, 20)  # mean square of the errors at each t
    found = masses(Recipe.from_findings(difficulty(profile)))
    expected = np.interp((np.arange(BINS) + 0.5) / BINS, np.linspace(0, 1, 20), np.sqrt(profile))
    assert total_variation(found, FLOOR / BINS + (1 - FLOOR) * expected / expected.sum()) < 1e-3


@pytest.mark.parametrize(
    ("rough", "momentum"),
    [([0.01], "mdlrc"), ([0.01, 0.2], "constant"), ([0.2], "constant"), ([float("nan")], "constant")],
)
def test_momentum_decays_on_smooth_landscapes_only(rough, momentum):
    recipe = Recipe.from_findings(difficulty(np.ones(20)), [landscape(r) for r in rough])
    assert recipe.apply(TrainingSettings()).momentum == momentum
    assert len(recipe.reasons) == 2


def test_without_a_landscape_momentum_is_left_alone():
    recipe = Recipe.from_findings(difficulty(np.ones(20)))
    assert recipe.apply(TrainingSettings(momentum="effective_lr")).momentum == "effective_lr"


def test_the_recipe_is_a_result_too():
    recipe = Recipe.from_findings(difficulty(np.linspace(1, 2, 20)), landscape(0.01))
    result = recipe.to_dataset("from pilot")
    assert json.loads(result.attrs["reasons"]) == list(recipe.reasons)
    assert json.loads(result.attrs["settings"])["momentum"] == "mdlrc"
    assert "pilot" in str(recipe)


def test_findings_of_another_kind_are_refused():
    with pytest.raises(UserError, match="needs a difficulty result"):
        Recipe.from_findings(landscape(0.1))
    with pytest.raises(UserError, match="needs a landscape result"):
        Recipe.from_findings(difficulty(np.ones(20)), difficulty(np.ones(20)))
    with pytest.raises(UserError, match="finite, positive"):
        Recipe.from_findings(difficulty(np.zeros(20)))
