import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.paper import protocol
from consistency_lab.paper.race import findings, parallel_runs, recipe_consistency
from consistency_lab.paper.race import plan as planning
from consistency_lab.paper.race.aggregation import LOSS, qualifies
from consistency_lab.paper.race.contestant_sets import (
    FIXED,
    FOLLOWING,
    MEASURED,
    SHUFFLED,
    center_contestants,
    recipes_of,
    standard_contestants,
)
from consistency_lab.paper.race.contestants import Contestant, as_density, at_horizons, static_twins
from consistency_lab.paper.race.curve import speedup_curve, with_targets
from consistency_lab.paper.race.dry_run import TURNS, race_dry_run
from consistency_lab.paper.race.plan import race_contestants, watch_of
from consistency_lab.paper.race.race import race
from consistency_lab.paper.race.running import RaceRun, Watch, evaluation_steps, frozen_batch
from consistency_lab.paper.race.study import race_recipes, run_race
from consistency_lab.paper.race.table import finals_table, race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.presets import race_plan
from consistency_lab.store.results import load_result, save_result
from consistency_lab.store.runs import Store
from consistency_lab.studies.local_executor import LocalExecutor
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import BINS, TIMESTEPS, total_variation
from consistency_lab.training.train import DenoisingBatches, build_denoiser, train, training_spec

BASE = TrainingSettings(network="mlp(width=32, depth=1)", steps=120, batch=32, lr_warmup=5, snapshots=0)
T = (np.arange(20) + 0.5) / 20
FOUND = {  # kappa = 100, a smooth landscape, small times hard
    "t": T.tolist(),
    "loss_second_moment": np.exp(-4 * T).tolist(),
    "gradients": [np.exp(-T).tolist(), np.exp(-2 * T).tolist()],
    "adam_second_moment": np.exp(-3 * T).tolist(),
    "roughness": 0.01,
    "curvature": [50.0, 1000.0, 2000],
    "seconds": [1.0, 3.0],
}
LINEAR = SCHEDULES.build("linear")
CPU = torch.device("cpu")


class Elsewhere(LocalExecutor):
    """An executor that notes which jobs it is given."""

    def __init__(self, workers):
        super().__init__(workers)
        self.asked = []

    def run(self, function, jobs, *arguments, **options):
        self.asked.append(list(jobs))
        return super().run(function, jobs, *arguments, **options)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").split(1400, 297, seed=0)


@pytest.fixture(scope="module")
def watch(digits):
    whole = load_images("digits")
    classifier = train_classifier(whole.all(), whole.labels, "digits", steps=30)
    return Watch(*digits, classifier, batch=64, every=10, count=40, sampler=Sampler("dpm++2m", 4))


@pytest.fixture(scope="module")
def contestants():
    return [
        Contestant("uniform", BASE, "control"),
        Contestant("same again", BASE.replace(timesteps="density(values=[1, 1])"), "density"),
        *at_horizons(Contestant("decay", BASE.replace(lr_final=0.1), "annealed"), [0.5, 1.0]),
        Contestant("slow", BASE.replace(lr=1e-6), "recipe", pilot_steps=30),
        Contestant("wild", BASE.replace(lr=1e6, clip_norm=0.0, optimizer="sgd", lr_warmup=0), "recipe"),
    ]


@pytest.fixture(scope="module")
def raced(contestants, watch, tmp_path_factory):
    path = tmp_path_factory.mktemp("race") / "rows.jsonl"
    seen = []
    options = {"seeds": [0, 1], "targets": (0.3, 0.8), "followed": 1}
    return path, race(contestants, watch, Rows(path), **options, live=seen.append), seen


def test_equal_terms(digits, contestants):
    """One seed: the same weights to begin with, the same images in the same order, the same noise."""
    sources = [DenoisingBatches(digits[0], each.settings.replace(seed=3), CPU) for each in contestants]
    for step in (0, 50):
        batches = [source.batch(step).data for source in sources]
        for x0, _, eps in batches[1:]:
            assert torch.equal(x0, batches[0][0])
            assert torch.equal(eps, batches[0][2])
    specs = [training_spec(digits[0], each.settings.replace(seed=3), CPU) for each in contestants]
    weights = [torch.cat([p.detach().flatten() for p in build_denoiser(spec).parameters()]) for spec in specs]
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_the_curve_is_of_the_model_that_train_makes(digits, watch, raced):
    _, result, _ = raced
    model = train(digits[0], settings=BASE.replace(seed=1))
    with torch.no_grad():
        expected = float(watch.frozen.losses(model.denoiser, denoising_loss).double().mean())
    curve = result["loss"].sel(contestant="uniform", seed=1)
    assert float(curve[-1]) == pytest.approx(expected, rel=1e-6)
    assert float(curve[-1]) < 0.8 * float(curve[0])
    assert float(result["evaluation_loss"].sel(contestant="uniform", seed=1)[-1]) == float(curve[-1])


def test_a_race_tells_what_happened(raced, contestants):
    _, result, seen = raced
    assert [each.sizes["seed"] for each in seen] == [1, 2]
    assert list(result["contestant"].values) == [each.name for each in contestants]
    # The target is the pilot's, between the control's first and last records.
    low, high = float(result["target_loss"][1]), float(result["target_loss"][0])
    assert low < high
    table = race_table(result).set_index(["contestant", "against"])
    own = table.loc[("uniform", "uniform, constant rate")]
    assert (own["speedup"], own["speedup_low"], own["speedup_high"], own["bound"]) == (1.0, 1.0, 1.0, "")
    # A density that is uniform is drawn to the same bits, so it crosses where the control does, in steps.
    twin = table.loc[("same again", "uniform, constant rate")]
    assert (twin["speedup"], twin["speedup_low"], twin["speedup_high"]) == (1.0, 1.0, 1.0)
    for name, diverged in (("slow", 0), ("wild", 2)):
        row = table.loc[(name, "uniform, constant rate")]
        assert (row["bound"], row["censored"], row["diverged"]) == ("at most", 2, diverged)
        assert np.isnan(row["speedup_low"])
    assert result["diverged_at"].sel(contestant="wild").notnull().all()
    assert float(table.loc[("slow", "uniform, constant rate")]["pilot_speedup"]) < float(
        table.loc[("slow", "uniform, constant rate")]["speedup"]
    )
    # Of one entry at two lengths, one is the fastest, and it is what others are raced against.
    lengths = table.xs("uniform, constant rate", level="against").query("entry == 'decay'")
    assert lengths["fastest"].sum() == 1
    chosen = lengths.index[lengths["fastest"]][0]
    assert set(table.xs("fastest uniform with annealing", level="against")["control"]) == {chosen}
    with pytest.raises(UserError, match="run for the targets"):
        race_table(result, 0.5)


def test_the_speedup_over_targets_is_that_of_a_race_to_each(raced):
    _, result, _ = raced
    again = with_targets(result, [0.3, 0.8])
    for name in ("crossing", "censored", "target_loss", "target_qualified"):
        np.testing.assert_array_equal(again[name], result[name])
    curve = speedup_curve(result, fractions=[0.3, 0.5, 0.8])
    assert curve["fraction"].unique().tolist() == [0.3, 0.5, 0.8]
    columns = [
        "contestant",
        "against",
        "control",
        "crossing",
        "speedup",
        "speedup_low",
        "speedup_high",
        "bound",
        "pilot_speedup",
    ]
    for target in (0.3, 0.8):
        same = curve[curve["fraction"] == target][columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(same, race_table(result, target)[columns])
    own = speedup_curve(result, ["slow"], [0.5])
    assert own["contestant"].unique().tolist() == ["slow"]
    assert set(own["against"]) == {"uniform, constant rate", "fastest uniform with annealing"}
    with pytest.raises(UserError, match=r"from 0\.0833333, its first record, to 1, not"):
        speedup_curve(result, fractions=[0.01])
    with pytest.raises(UserError, match="has no nobody; there are uniform"):
        speedup_curve(result, ["nobody"])
    with pytest.raises(UserError, match="curve of its target pilot"):
        speedup_curve(result.drop_vars("pilot_loss"))


def test_references_and_qualification(raced):
    _, result, _ = raced
    finals = finals_table(result).set_index("contestant")
    assert {"training images", "Gaussian denoiser", "data mean", "optimal denoiser"} < set(finals.index)
    assert finals.loc["Gaussian denoiser", "loss"] < finals.loc["data mean", "loss"]
    # A network of 120 steps has recipe_consistency less than a Gaussian knows: the metric may not be a target yet, and the race says so.
    assert finals.loc["uniform", "loss"] > finals.loc["Gaussian denoiser", "loss"]
    assert not bool(result["qualified"].sel(metric=LOSS))
    assert qualifies(0.1, 0.2, 0.3)
    assert not qualifies(0.1, 0.2, 0.1)
    assert not qualifies(0.1, 0.1, 0.3)
    assert np.isnan(finals.loc["wild", "loss"])
    assert finals.loc["wild", "diverged"] == 2
    assert finals.loc["uniform", "loss_low"] < finals.loc["uniform", "loss"] < finals.loc["uniform", "loss_high"]


def test_a_race_goes_on_from_its_rows(raced, contestants, watch, monkeypatch, tmp_path):
    path, result, _ = raced
    lines = path.read_text().splitlines()
    kinds = [json.loads(line)["spec"]["row"] for line in lines]
    assert kinds.count("run") == 6 * 2 + 1
    assert kinds.count("references") == 1
    assert kinds.count("evaluation") == (5 * 2 + 1) * 6
    assert kinds.count("pace") == 2
    # Without the last run and its evaluations: only that is done again, to the same numbers.
    kept = [line for line in lines if json.loads(line)["spec"]["row"] != "run"] + [
        line for line in lines if json.loads(line)["spec"]["row"] == "run"
    ][:-2]
    (tmp_path / "rows.jsonl").write_text("\n".join(kept) + "\n")
    calls = []
    original = parallel_runs.train_watched
    monkeypatch.setattr(parallel_runs, "train_watched", lambda *args: calls.append(1) or original(*args))
    options = {"seeds": [0, 1], "targets": (0.3, 0.8), "followed": 1}
    again = race(contestants, watch, Rows(tmp_path / "rows.jsonl"), **options)
    assert len(calls) == 2
    assert again.equals(result)  # seconds too: they are timed once
    save_result(result, tmp_path / "race.nc")
    assert load_result(tmp_path / "race.nc").equals(result)


def test_a_target_that_nobody_reaches(watch, raced, monkeypatch):
    path, _, _ = raced
    stuck = [Contestant("uniform", BASE, "control"), Contestant("slow", BASE.replace(lr=1e-6), "recipe")]
    result = race(stuck, watch, Rows(path), seeds=[0, 1], targets=(0.8,))
    unreached = result.assign(censored=result["censored"] | True)
    table = race_table(unreached)
    assert set(table["bound"]) == {"unknown"}
    assert table["speedup"].isna().all()
    assert (table["censored"] == 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[1:], "one contestant in the role of the control"),
        (lambda f: [*f, f[1]], "have one name"),
        (lambda f: [*f, Contestant("cosine", BASE.replace(schedule="cosine"), "recipe")], "cannot be raced"),
    ],
)
def test_unfair_races_are_refused(contestants, watch, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        race(change(contestants), watch, Rows(tmp_path / "r.jsonl"), seeds=[0])


def test_impossible_races_are_refused(contestants, watch, tmp_path):
    rows = Rows(tmp_path / "r.jsonl")
    with pytest.raises(UserError, match="target seed"):
        race(contestants, watch, rows, seeds=[0, 1000])
    with pytest.raises(UserError, match="fractions of the target pilot"):
        race(contestants, watch, rows, seeds=[0], targets=(1.5,))
    with pytest.raises(UserError, match="target pilot diverged"):
        race([dataclasses.replace(contestants[-1], role="control")], watch, rows, seeds=[0])
    with pytest.raises(UserError, match="role of a contestant"):
        Contestant("x", BASE, "winner")
    with pytest.raises(UserError, match="fraction above 0"):
        at_horizons(contestants[0], [0.0])
    with pytest.raises(UserError, match="2 samples"):
        dataclasses.replace(watch, count=1)


def test_horizons_keep_the_average_in_steps():
    half, whole = at_horizons(Contestant("a", BASE, "annealed"), [0.5, 1.0])
    assert (half.name, half.entry, half.settings.steps) == ("a, 60 steps", "a", 60)
    assert half.settings.ema_half_life * 60 == pytest.approx(BASE.ema_half_life * 120)
    assert whole.settings == BASE


def test_static_twins_are_the_end_and_the_average():
    contestant = Contestant("c", BASE.replace(timesteps="clts(width=0.15, floor=0.1, horizon=0.5)"), "curriculum")
    sampler = TIMESTEPS.build(contestant.settings.timesteps, LINEAR, BASE.steps)
    end, average = (TIMESTEPS.build(twin.settings.timesteps, LINEAR, 1).masses(0) for twin in static_twins(contestant))
    assert total_variation(end, sampler.masses(BASE.steps)) < 2e-3
    drawn = np.mean([sampler.masses(step) for step in range(BASE.steps)], axis=0)
    assert total_variation(average, drawn) < 2e-3
    assert static_twins(contestant)[1].settings.timesteps == as_density(drawn)  # to the bit
    assert total_variation(average, end) > 0.05
    assert [twin.role for twin in static_twins(contestant)] == ["twin", "twin"]
    with pytest.raises(UserError, match="adapts to the loss"):
        static_twins(Contestant("c", BASE.replace(timesteps="clusters"), "curriculum"))
    assert TIMESTEPS.build(as_density(np.full(BINS, 1 / BINS), weighted=True), LINEAR, 1).weighted


def test_the_frozen_batch_is_uniform_in_t(digits):
    batch = frozen_batch(digits[1], LINEAR, 400, CPU)
    t = batch.tensors[1].numpy()
    assert np.allclose(np.sort(t), LINEAR.t_min + (np.arange(400) + 0.5) / 400 * (LINEAR.t_max - LINEAR.t_min))
    assert abs(np.corrcoef(t, np.arange(400))[0, 1]) < 0.15
    assert torch.equal(batch.tensors[0][297:], digits[1].all()[:103])
    assert batch.fingerprint == frozen_batch(digits[1], LINEAR, 400, CPU).fingerprint


def test_evaluations_lie_on_a_log_grid():
    assert evaluation_steps(1200) == [38, 75, 150, 300, 600, 1200]
    assert evaluation_steps(3) == [1, 3]


def test_the_standard_set_has_its_controls():
    found = findings.from_row(FOUND)
    elsewhere = {"foreign": recipes_of(found, BASE)[FIXED]}
    contestants = standard_contestants(BASE, found, pilot_steps=50, foreign=elsewhere)
    by_name = {each.name: each for each in contestants}
    assert len(by_name) == len(contestants)
    assert [each.name for each in contestants if each.role == "control"] == ["uniform"]
    ours, uniform = by_name[f"{FOLLOWING}, 60 steps"], by_name["uniform + annealing, 60 steps"]
    # The same annealing, the same length: the density alone tells them apart, for densities of others too.
    assert ours.settings.replace(timesteps="uniform") == uniform.settings
    assert uniform.settings.lr_final == pytest.approx(1 / np.sqrt(38 * BASE.steps), abs=1e-4)
    assert by_name["EDM log-normal + annealing, 60 steps"].settings.replace(timesteps="uniform") == uniform.settings
    assert by_name["min-SNR + annealing, 60 steps"].settings == uniform.settings.replace(weighting="min-snr")
    measured = by_name[f"{MEASURED}, 60 steps"].settings
    assert measured.optimizer == f"adam(beta1={round((9 / 11) ** 2, 3)})"
    assert measured.timesteps == ours.settings.timesteps
    assert (ours.pilot_steps, ours.pilot_seconds) == (50, 4.0)
    assert (by_name["foreign, 60 steps"].pilot_steps, by_name["foreign, 60 steps"].pilot_seconds) == (0, 0.0)
    blind, fixed = (by_name[f"{name}, 60 steps"].settings for name in (SHUFFLED, FIXED))
    assert blind.timesteps != fixed.timesteps
    assert by_name[f"{FOLLOWING}, constant rate, 60 steps"].settings == ours.settings.replace(lr_final=BASE.lr_final)
    assert blind.replace(timesteps="uniform") == uniform.settings
    assert [c.settings.steps for c in contestants if c.entry == "uniform + annealing"] == [36, 54, 60, 120]
    assert [c.settings.steps for c in contestants if c.entry == FOLLOWING] == [36, 60]
    assert [c.settings.steps for c in contestants if c.entry == "foreign"] == [36, 60]
    assert {"twin", "paper", "shuffled", "density", "momentum"} <= {each.role for each in contestants}
    centers = center_contestants(BASE)
    assert [each.settings.timesteps for each in centers[1:3]] == ["clts(center=0.1)", "clts(center=0.3)"]


def small(plan):
    base = plan.base.replace(network="mlp(width=16, depth=1)", steps=30, batch=32, lr_warmup=2)
    return dataclasses.replace(plan, base=base, seeds=2, pilot_steps=20, count=20, nfe=2, batch=32, every=10)


def test_a_presets_race_and_its_cost(tmp_path, monkeypatch):
    plan, store, rows = small(race_plan("digits")), Store(tmp_path / "runs"), Rows(tmp_path / "rows.jsonl")
    classify = planning.set_classifier
    monkeypatch.setattr(planning, "set_classifier", lambda whole, store: classify(whole, store, steps=20))
    centers = [f"CLTS, center {c:g}" for c in (0.1, 0.3, 0.5, 0.7, 0.9)]
    before = race_dry_run(plan, store, rows, contestant_set="centers")
    timing = before.pop(TURNS)
    assert timing[0] == 0 < timing[1]
    assert set(before) == {"target pilot", "uniform", *centers}  # no recipe, so no pilot of findings
    assert all(training > 0 and evaluation > 0 for training, evaluation in before.values())
    assert not rows.path.exists()
    # What stopped after the first seed goes on, and two processes give what one does.
    run_race(dataclasses.replace(plan, seeds=1), store, rows, contestant_set="centers")
    result = run_race(plan, store, rows, contestant_set="centers", workers=2)
    assert result.sizes["contestant"] == 6
    again = parallel_runs.train_watched(_watch(plan, store), RaceRun("uniform", plan.base.replace(seed=1)))
    both = result["loss"].sel(contestant="uniform", seed=1).values
    assert np.allclose(both[np.isfinite(both)], again["loss"], rtol=1e-5)
    table = race_table(result).set_index("contestant")
    uniform, clts = table.loc["uniform"], table.loc["CLTS, center 0.3"]
    assert uniform["total_variation"] == 0.0
    assert uniform["effective_sample_size"] == pytest.approx(32.0)
    assert clts["total_variation"] > 0.05
    assert 1 < clts["effective_sample_size"] < 32
    after = race_dry_run(plan, store, Rows(rows.path), contestant_set="centers")
    assert set(after.values()) == {(0.0, 0.0)}
    with pytest.raises(UserError, match="no findings yet"):
        race_recipes(plan, rows)
    # The standard contestants follow the pilot's findings; what the two sets share is not run again.
    rows.row(findings.findings_spec(plan.sets()[1], plan.pilot, CPU), lambda: FOUND)
    few = {
        name: race_contestants(plan, "standard", findings.from_row(FOUND))[i] for i, name in enumerate(("a", "b", "c"))
    }
    monkeypatch.setattr(planning, "standard_contestants", lambda *a, **k: list(few.values()))
    cost = race_dry_run(plan, store, rows)
    assert "pilot" not in cost
    assert (cost["target pilot"], cost["uniform"][0]) == ((0.0, 0.0), 0.0)
    assert cost["uniform + annealing, 9 steps"][0] > 0
    assert race_recipes(plan, rows)["fixed"].changes["lr_final"] > 0
    with pytest.raises(UserError, match="contestants of a race are"):
        run_race(plan, store, rows, contestant_set="sprint")
    with pytest.raises(UserError, match="at least one worker"):
        run_race(plan, store, rows, contestant_set="centers", workers=0)
    with pytest.raises(UserError, match="cannot be cut"):
        dataclasses.replace(plan, images=1700).sets()
    assert race_plan("fashion").seeds >= 3
    with pytest.raises(UserError, match="unknown preset"):
        race_plan("digit")


def _watch(plan, store):
    return watch_of(plan, *plan.sets(), store, CPU)


def test_findings_are_measured_and_kept(tmp_path):
    images = load_images("digits").split(200, 20, seed=0)[0]
    pilot = BASE.replace(network="mlp(width=8, depth=1)", steps=20)
    rows = Rows(tmp_path / "rows.jsonl")
    where = Elsewhere(1)
    found = findings.findings(images, pilot, rows, CPU, where)
    assert where.asked == [["race-pilot"]]  # timed where the race's runs are
    assert found.curvature.top > 0
    assert found.curvature.condition > 1
    assert all(seconds > 0 for seconds in found.seconds)
    recipe = recipes_of(found, BASE)[MEASURED]
    assert "condition number" in str(recipe) or "too far from one" in str(recipe)
    kept = findings.findings(images, pilot, Rows(rows.path), CPU)
    assert kept.seconds == found.seconds
    assert recipes_of(kept, BASE) == recipes_of(found, BASE)


@pytest.mark.slow
def test_what_is_learnt_is_compared_within_and_between(tmp_path, monkeypatch):
    plan = small(race_plan("digits"))
    classify = planning.set_classifier
    monkeypatch.setattr(protocol, "set_classifier", lambda whole, store: classify(whole, store, steps=20))
    rows = Rows(tmp_path / "rows.jsonl")
    table = recipe_consistency.what_is_learnt(plan, Store(tmp_path / "runs"), rows, seeds=3, count=12).set_index(
        "family"
    )
    assert {"uniform", "recipe", "uniform | recipe"} <= set(table.index)
    between = table.loc["uniform | recipe"]
    assert between["mse_score_low"] <= between["mse_score"] <= between["mse_score_high"]
    assert between["mse_score"] <= max(table.loc["uniform", "mse_score"], table.loc["recipe", "mse_score"]) + 0.05
