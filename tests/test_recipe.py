import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.recipe import UNIFORM_SHARE, Curvature, Recipe, heavy_ball_momentum, shuffled
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import BINS, TIMESTEPS, total_variation

FIGURES = Path(__file__).parents[1] / "figures"
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
    assert min(density) >= UNIFORM_SHARE * 0.99


def test_flat_difficulty_is_uniform():
    assert total_variation(masses(Recipe.from_findings(difficulty(np.ones(20)))), np.full(BINS, 1 / BINS)) < 0.02


def test_the_density_is_the_root_of_the_second_moment():
    profile = np.linspace(1.0, 0.04, 20)  # mean square of the errors at each t
    found = masses(Recipe.from_findings(difficulty(profile)))
    expected = np.interp((np.arange(BINS) + 0.5) / BINS, T, np.sqrt(profile))
    assert total_variation(found, UNIFORM_SHARE / BINS + (1 - UNIFORM_SHARE) * expected / expected.sum()) < 1e-3
    tempered = masses(Recipe.from_findings(difficulty(profile), exponent=0.5))
    expected = np.sqrt(expected)
    assert total_variation(tempered, UNIFORM_SHARE / BINS + (1 - UNIFORM_SHARE) * expected / expected.sum()) < 1e-3


def test_gradients_are_used_where_they_were_measured():
    findings = difficulty(np.ones(20)).assign(gradient_second_moment=("t", np.where(T > 0.5, 4.0, 1.0)))
    found = masses(Recipe.from_findings(findings))
    assert (found[900] - UNIFORM_SHARE / BINS) / (found[100] - UNIFORM_SHARE / BINS) == pytest.approx(2.0, rel=1e-3)
    assert "gradient norm" in str(Recipe.from_findings(findings))


def test_importance_weights_or_another_objective_is_a_field():
    findings = difficulty(np.linspace(1.0, 0.04, 20))
    samplers = {}
    for draws in ("objective", "importance"):
        recipe = Recipe.from_findings(findings, draws=draws)
        assert recipe.draws == draws
        text = recipe.apply(TrainingSettings()).timesteps
        samplers[draws] = TIMESTEPS.build(text, SCHEDULES.build("linear"), 1000)
    _, weight = samplers["importance"].sample(10**5, 0, torch.Generator().manual_seed(0))
    assert weight.std() > 0.3
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    assert (samplers["objective"].sample(100, 0, torch.Generator())[1] == 1).all()
    # Of all densities this one gives the least variance for gradients of those norms: no small change of it does better.
    norm = lambda t: np.interp(t, T, np.linspace(1.0, 0.04, 20) ** 0.5)  # noqa: E731
    density = samplers["importance"].masses(0) - UNIFORM_SHARE / BINS
    second = lambda p: (norm(samplers["importance"].centres) ** 2 / p).sum()  # noqa: E731
    density /= density.sum()
    for k in range(1, 6):
        other = density * (1 + 0.2 * np.cos(k * np.pi * samplers["importance"].centres))
        assert second(density) < second(other / other.sum())


@pytest.mark.parametrize(
    ("rough", "momentum"),
    [([0.01], "mdlrc"), ([0.01, 0.2], "constant"), ([0.2], "constant"), ([float("nan")], "constant")],
)
def test_momentum_decays_on_smooth_landscapes_only(rough, momentum):
    recipe = Recipe.from_findings(difficulty(np.ones(20)), [landscape(r) for r in rough], measured_momentum=True)
    assert recipe.apply(TrainingSettings()).momentum == momentum
    assert len(recipe.reasons) == 2


def lr_and_beta(settings, **curvature):
    options = {"curvature": Curvature(**curvature), "settings": settings, "measured_momentum": True}
    recipe = Recipe.from_findings(difficulty(np.ones(20)), **options)
    return recipe.apply(settings), recipe


def test_momentum_follows_the_condition_number():
    settings = TrainingSettings(steps=800)
    found, recipe = lr_and_beta(settings, top=50.0, trace=1000.0, parameters=2000)  # kappa = 100
    assert found.optimizer == f"adam(beta1={round((9 / 11) ** 2, 3)!r})"
    assert found.momentum == "constant"
    beta = (9 / 11) ** 2
    assert found.lr_final == pytest.approx(1 / np.sqrt(2 * (1 + beta) / (1 - beta) * 800), abs=1e-4)
    assert "condition number" in str(recipe)
    # Twice the top curvature: kappa = 200. Twice the whole Hessian: the same ratios, and Adam's steps would be the same too.
    root = 200**0.5
    twice, _ = lr_and_beta(settings, top=100.0, trace=1000.0, parameters=2000)
    assert twice.optimizer == f"adam(beta1={round(((root - 1) / (root + 1)) ** 2, 3)!r})"
    assert lr_and_beta(settings, top=100.0, trace=2000.0, parameters=2000)[0] == found
    # A round valley wants none, a hopeless one the most that is given.
    assert lr_and_beta(settings, top=1.0, trace=10.0, parameters=10)[0].optimizer == "adam(beta1=0.0)"
    assert lr_and_beta(settings, top=1e9, trace=10.0, parameters=10)[0].optimizer == "adam(beta1=0.99)"


@pytest.mark.parametrize("kappa", [10.0, 100.0])
def test_beta_is_the_fastest_on_its_quadratic(kappa):
    def slowest(beta):  # factor per step of the slower end, with the step that serves both ends alike
        steps = 2 * (1 + beta) / (1 + kappa) * np.array([1.0, kappa])
        return max(np.abs(np.roots([1, -(1 + beta - a), beta])).max() for a in steps)

    betas = np.linspace(0, 0.99, 991)
    assert heavy_ball_momentum(kappa) == pytest.approx(betas[np.argmin([slowest(b) for b in betas])], abs=0.002)


def test_sgd_anneals_by_its_measured_stiffness():
    settings = TrainingSettings(steps=400, optimizer="sgd(weight_decay=0.1)", lr=0.01)
    found, _ = lr_and_beta(settings, top=50.0, trace=1000.0, parameters=2000)
    beta = (9 / 11) ** 2
    assert found.optimizer == f"sgd(momentum={round(beta, 3)!r}, weight_decay=0.1)"
    assert found.lr_final == pytest.approx(1 / np.sqrt(0.01 / (1 - beta) * 50 * 400), abs=1e-4)


def test_annealing_further_gains_nothing_in_the_stiffest_direction():
    def variance(final, stiffness, steps):
        v = stiffness / 2
        for k in range(steps):
            a = stiffness * (1 - (1 - final) * k / steps)
            v = (1 - a) ** 2 * v + a**2
        return v

    for stiffness, steps in [(0.5, 1000), (0.1, 4000)]:
        chosen = 1 / np.sqrt(stiffness * steps)
        least = variance(0.0, stiffness, steps)
        assert variance(chosen, stiffness, steps) < 1.6 * least
        assert variance(4 * chosen, stiffness, steps) > 3 * least


def test_curvature_is_not_trusted_off_the_quadratic():
    findings, valley = difficulty(np.ones(20)), Curvature(50.0, 1000.0, 2000)
    settings = TrainingSettings()
    smooth = Recipe.from_findings(findings, landscape(0.01), curvature=valley, measured_momentum=True)
    assert smooth.apply(settings).optimizer != settings.optimizer
    for rough, curvature in [(0.2, valley), (float("nan"), valley), (0.01, Curvature(-1.0, -5.0, 10))]:
        recipe = Recipe.from_findings(findings, landscape(rough), curvature=curvature)
        assert list(recipe.changes) == ["timesteps"]
        assert "stay as they are" in str(recipe)
    result = curvature_result([50.0], [1000.0], 2000)
    assert Recipe.from_findings(findings, landscape(0.01), curvature=result, measured_momentum=True) == smooth
    both = curvature_result([-3.0, 50.0], [7.0, 1000.0], 2000)  # the Gauss-Newton part is what is read
    assert Recipe.from_findings(findings, landscape(0.01), curvature=both, measured_momentum=True) == smooth
    with pytest.raises(UserError, match="the trace and the number"):
        Recipe.from_findings(findings, curvature=result.drop_vars("trace"))
    with pytest.raises(UserError, match="did not converge"):
        Recipe.from_findings(findings, curvature=result.assign(converged=0 * result["eigenvalue"]))


def test_momentum_is_kept_unless_asked_for():
    settings = TrainingSettings(steps=400, optimizer="adam(beta1=0.8)")
    options = {"curvature": Curvature(50.0, 1000.0, 2000), "settings": settings}
    kept = Recipe.from_findings(difficulty(np.ones(20)), landscape(0.01), **options)
    assert list(kept.changes) == ["timesteps", "lr_final"]
    assert kept.changes["lr_final"] == pytest.approx(1 / np.sqrt(2 * 1.8 / 0.2 * 400), abs=1e-4)
    # Adam's annealing needs no measured curvature, SGD's does.
    alone = Recipe.from_findings(difficulty(np.ones(20)), landscape(0.01), settings=settings)
    assert alone.changes == kept.changes
    plain = Recipe.from_findings(difficulty(np.ones(20)), landscape(0.01), settings=settings.replace(optimizer="sgd"))
    assert list(plain.changes) == ["timesteps"]
    assert "measured curvature" in str(plain)
    assert list(Recipe.from_findings(difficulty(np.ones(20)), landscape(0.2)).changes) == ["timesteps"]
    with pytest.raises(UserError, match="True or False"):
        Recipe.from_findings(difficulty(np.ones(20)), measured_momentum="some")


def test_gradients_of_the_probe_serve_importance_weights_alone():
    mean, noise = np.where(T > 0.5, 1.0, -0.5), np.where(T > 0.5, 3.0, 1.5)  # their sum is E |g|^2: 4 and 1
    profile = (("definition", "t"), np.stack([mean, noise]))
    findings = difficulty(np.ones(20)).assign(profile=profile)
    findings = findings.assign_coords(definition=["gradient norm", "gradient noise"])
    found = masses(Recipe.from_findings(findings, draws="importance"))
    assert (found[900] - UNIFORM_SHARE / BINS) / (found[100] - UNIFORM_SHARE / BINS) == pytest.approx(2.0, rel=1e-3)
    assert np.ptp(masses(Recipe.from_findings(findings, draws="objective"))) < 1e-6


def test_importance_weights_are_for_the_optimizers_own_metric():
    findings = difficulty(np.linspace(1.0, 0.5, 20))
    profile = (("definition", "t"), np.stack([np.zeros(20), np.ones(20)]))
    findings = findings.assign(profile=profile, adam_second_moment=("t", np.where(T > 0.5, 4.0, 1.0)))
    findings = findings.assign_coords(definition=["gradient norm", "gradient noise"])
    adam, sgd = (
        Recipe.from_findings(findings, settings=TrainingSettings(optimizer=name))
        for name in ("adamw", "sgd(momentum=0.9)")
    )
    assert "Adam's metric" in str(adam)
    found = masses(adam)
    assert (found[900] - UNIFORM_SHARE / BINS) / (found[100] - UNIFORM_SHARE / BINS) == pytest.approx(2.0, rel=1e-3)
    assert np.ptp(masses(sgd)) < 1e-6
    assert np.ptp(masses(Recipe.from_findings(findings, draws="objective"))) > 1e-4  # of losses


def test_a_followed_density_goes_with_the_losses_as_gradients_did():
    loss = np.geomspace(1.0, 0.01, 20)
    findings = difficulty(loss**2)
    profile = (("definition", "t"), np.stack([0 * loss, 5 * loss**1.3]))
    measured = findings.assign(profile=profile).assign_coords(definition=["gradient norm", "gradient noise"])
    for each, exponent, power in ((findings, 1.0, 0.5), (measured, 1.0, 0.65), (measured, 1.5, 0.975)):
        recipe = Recipe.from_findings(each, density="followed", exponent=exponent)
        sampler = TIMESTEPS.build(recipe.apply(TrainingSettings()).timesteps, SCHEDULES.build("linear"), 1000)
        assert (sampler.exponent, sampler.floor, sampler.weighted) == (power, UNIFORM_SHARE, True)
        assert f"{power:g}th power" in str(recipe)
        # Fed the findings' own losses it comes to the density of the findings.
        t = torch.from_numpy(np.repeat(T, 400)) * (sampler.high - sampler.low) + sampler.low
        sampler.losses, sampler.counts = np.zeros((20, 400)), np.zeros(20, dtype=np.int64)
        sampler.update(t, torch.from_numpy(np.repeat(loss, 400)))
        found = sampler.masses(0).reshape(20, 50).sum(1) - UNIFORM_SHARE / 20
        assert np.allclose(found / found.sum(), loss**power / (loss**power).sum())
    falling = measured.assign(profile=(("definition", "t"), np.stack([0 * loss, 1 / loss])))
    with pytest.raises(UserError, match="use a fixed one"):
        Recipe.from_findings(falling, density="followed")
    with pytest.raises(UserError, match="with importance weights"):
        Recipe.from_findings(measured, density="followed", draws="objective")


def curvature_result(tops, traces, parameters):
    dims = ("operator", "part", "end", "rank")
    return xr.Dataset(
        {
            "eigenvalue": (dims, np.array(tops)[:, None, None, None]),
            "trace": (dims[:2], np.array(traces)[:, None]),
        },
        {"operator": ["hessian", "gauss_newton"][: len(tops)], "part": ["all"], "end": ["top"], "rank": [1]},
        {"kind": "curvature", "parameters": parameters},
    )


def test_shuffled_findings_have_the_same_values_in_another_order():
    findings = difficulty(np.linspace(1.0, 0.04, 20)).assign(gradient_second_moment=("t", np.arange(1.0, 21.0)))
    control = shuffled(findings, 3)
    assert control.equals(shuffled(findings, 3))
    assert not control.equals(shuffled(findings, 4))
    assert (control["t"].values == T).all()
    for name in ("error", "gradient_second_moment"):
        values = control[name].values if name != "error" else control[name].values[0, :, 0]
        before = findings[name].values if name != "error" else findings[name].values[0, :, 0]
        assert sorted(values) == sorted(before)
        assert (values != before).any()
    assert "shuffled pilot" in str(Recipe.from_findings(control))


def test_the_papers_recipe():
    recipe = Recipe.paper()
    settings = recipe.apply(TrainingSettings())
    assert (settings.timesteps, settings.momentum) == ("clts(center=0.3, width=0.2)", "mdlrc")
    t, density = map(np.array, zip(*recipe.density, strict=True))
    assert t[density.argmax()] == pytest.approx(0.3, abs=0.011)
    assert density.mean() == pytest.approx(1.0, abs=0.01)


def test_a_recipe_is_saved_and_read(tmp_path):
    for recipe in (
        Recipe.paper(),
        Recipe.from_findings(difficulty(np.linspace(1, 2, 20)), landscape(0.01), draws="importance"),
    ):
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe
    for text in ("[]", "{}", '{"kind": "recipe"}', "nothing"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UserError, match="is not a recipe"):
            Recipe.load(tmp_path / "other.json")


def test_a_density_is_an_array_in_the_file(tmp_path):
    path = tmp_path / "recipe.json"
    recipe = Recipe.from_findings(difficulty(np.linspace(1, 2, 20)))
    recipe.save(path)
    content = json.loads(path.read_text())
    del content["checksum"]
    found = content["changes"]["timesteps"]
    assert found["name"] == "density"
    assert found["values"] == recipe.changes["timesteps"].options["values"]
    assert len(found["values"]) == 21
    # Recipes used to hold it as text, and settings files may.
    content["changes"]["timesteps"] = str(recipe.changes["timesteps"])
    path.write_text(json.dumps(content))
    assert Recipe.load(path) == recipe
    path.write_text(json.dumps({"timesteps": found}))
    assert TrainingSettings.read(path) == recipe.apply(TrainingSettings())
    path.write_text(json.dumps({**content, "changes": {"timesteps": 3}}))
    with pytest.raises(UserError, match="is not a recipe"):
        Recipe.load(path)


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*/recipe-*.json")), ids=lambda path: path.stem)
def test_committed_recipes_are_read(path):
    text = json.loads(path.read_text())["changes"]["timesteps"]
    settings = Recipe.load(path).apply(TrainingSettings())
    assert settings.timesteps == text
    assert settings.spec() == TrainingSettings.of(**json.loads(path.read_text())["changes"]).spec()


def test_without_a_landscape_momentum_is_left_alone():
    recipe = Recipe.from_findings(difficulty(np.ones(20)))
    assert recipe.apply(TrainingSettings(momentum="effective_lr")).momentum == "effective_lr"


def test_the_recipe_is_a_result_too():
    recipe = Recipe.from_findings(difficulty(np.linspace(1, 2, 20)), landscape(0.01))
    result = recipe.to_dataset("from pilot")
    assert json.loads(result.attrs["reasons"]) == list(recipe.reasons)
    assert json.loads(result.attrs["settings"])["lr_final"] == recipe.changes["lr_final"] < 1
    assert "pilot" in str(recipe)


def test_findings_of_another_kind_are_refused():
    with pytest.raises(UserError, match="needs a difficulty result"):
        Recipe.from_findings(landscape(0.1))
    with pytest.raises(UserError, match="needs a landscape result"):
        Recipe.from_findings(difficulty(np.ones(20)), difficulty(np.ones(20)))
    with pytest.raises(UserError, match="finite, positive"):
        Recipe.from_findings(difficulty(np.zeros(20)))
    with pytest.raises(UserError, match="needs a curvature result"):
        Recipe.from_findings(difficulty(np.ones(20)), curvature=landscape(0.1))
    with pytest.raises(UserError, match="objective or importance"):
        Recipe.from_findings(difficulty(np.ones(20)), draws="none")


@pytest.mark.parametrize(
    "change",
    [
        {"changes": ["mdlrc"]},
        {"reasons": "because"},
        {"draws": "none"},
        {"density": [[0.5, float("nan")]]},
        {"density": [[0.5, -1.0]]},
        {"density": [[1.5, 1.0]]},
        {"density": [0.5]},
        {"more": 1},
    ],
)
def test_a_file_that_says_something_else_is_no_recipe(tmp_path, change):
    path = tmp_path / "recipe.json"
    Recipe.paper().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match="its checksum does not fit"):
        Recipe.load(path)
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "checksum"}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"recipe\.json is not a recipe"):
        Recipe.load(path)


def test_recipes_of_committed_races_are_still_read():
    for path in sorted((Path(__file__).parents[1] / "figures").glob("*/recipe-*.json")):
        written = json.loads(path.read_text("utf-8"))
        assert Recipe.load(path).draws == written["weighting"]
        assert Recipe.load(path).changes == written["changes"]
