"""The race without a pilot: its contestants, their matched controls, and how rates are chosen."""

import dataclasses

import pytest

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.paper.race import plan as planning
from consistency_lab.paper.race import rates as rating
from consistency_lab.paper.race.contestant_sets import (
    CELLS,
    CLOSED_FORM,
    EDM,
    MUON,
    POSTERIOR,
    pilot_free_contestants,
    standard_contestants,
)
from consistency_lab.paper.race.dry_run import TURNS, race_dry_run
from consistency_lab.paper.race.findings import unknown
from consistency_lab.paper.race.plan import leaders, race_contestants
from consistency_lab.paper.race.rates import MOST_RATES, RATES, rates_of
from consistency_lab.paper.race.study import run_race
from consistency_lab.paper.race.table import AGAINST, MATCHED, race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.presets import race_plan
from consistency_lab.recipe import Recipe
from consistency_lab.store.results import provenance
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings

BASE = TrainingSettings.of(network="mlp(width=16, depth=1)", steps=120, batch=32, lr_warmup=2, snapshots=0)


@pytest.fixture(scope="module")
def free():
    return Recipe.from_images(cl.load_images("digits"), settings=BASE)


@pytest.fixture(scope="module")
def with_muon(free):
    return dataclasses.replace(free, changes={**free.changes, "optimizer": "muon"})


def test_every_optimizer_and_preconditioning_has_a_control_that_differs_in_its_draws_alone(free, with_muon):
    rates = {"base": 0.004, MUON: 0.5, CLOSED_FORM: 0.001, EDM: BASE.lr}
    contestants = pilot_free_contestants(BASE, with_muon, rates)
    by_name = {each.name: each for each in contestants}
    assert len(by_name) == len(contestants)
    entries = {each.entry for each in contestants}
    controls = [each for each in contestants if each.matched]
    assert {each.matched for each in controls} <= entries
    for name in (CLOSED_FORM, EDM, MUON, f"{MUON}, {CLOSED_FORM}"):
        ours, matched = (by_name[f"{name}{what}, 60 steps"] for what in (" + followed draws", ", uniform"))
        assert ours.matched == matched.entry
        assert matched.role == "matched"
        assert ours.settings.replace(timesteps="uniform") == matched.settings
        assert ours.settings.timesteps == free.changes["timesteps"]
        assert ours.settings.lr_final == free.changes["lr_final"]
    assert by_name[f"{MUON}, uniform, 60 steps"].settings.lr == 0.5
    assert by_name[f"{CLOSED_FORM}, uniform, 60 steps"].settings.lr == 0.001
    assert by_name[f"{EDM}, uniform, 60 steps"].settings.lr == BASE.lr
    # Controls have the rate that is best for them, and the recipe's own control races as often as they do.
    assert [each.settings.lr for each in contestants if each.role == "control"] == [0.004]
    annealed = [(each.name, each.entry, each.settings.lr) for each in contestants if each.role == "annealed"]
    assert {lr for _, _, lr in annealed} == {0.004, BASE.lr}  # the fastest at either counts
    assert {entry for _, entry, _ in annealed} == {"uniform + annealing", "uniform + decay to .1"}
    assert by_name[f"followed draws, 60 steps, rate {BASE.lr:g}"].entry == "followed draws"
    assert by_name["followed draws, 60 steps"].settings.lr == 0.004
    own = [each for each in contestants if each.entry == f"{CLOSED_FORM}, uniform"]
    assert {each.settings.steps for each in own} == {36, 54, 60, 120}
    assert [each.settings.lr_final for each in own].count(BASE.lr_final) == 1
    assert {each.settings.timesteps.name for each in own} == {"uniform"}
    assert [each.name for each in contestants if each.role == "density"] == [
        f"{CELLS} + annealing, 60 steps",
        f"{CELLS} + annealing, 60 steps, rate {BASE.lr:g}",
        f"{CLOSED_FORM} + {CELLS}, 60 steps",
    ]
    assert [each.name for each in contestants if each.role == "control"] == ["uniform"]
    standard = standard_contestants(BASE, unknown(), pilot_steps=10)
    assert {each.name for each in standard if each.role == "annealed"} < {name for name, _, _ in annealed}
    assert by_name["followed draws, 60 steps"].settings.predicts == "eps"
    assert not any(each.pilot_steps for each in contestants)
    timed = pilot_free_contestants(BASE, with_muon, {}, seconds=0.25)
    assert {each.role for each in timed if each.pilot_seconds == 0.25} == {"recipe"}
    assert {each.pilot_seconds for each in timed} == {0.0, 0.25}
    assert by_name[f"{CLOSED_FORM} + followed draws, MDLRC, 60 steps"].settings.momentum == "mdlrc"


def test_the_recipe_has_the_optimizer_that_it_takes_and_its_control_has_it_too(free, with_muon):
    """The other one is an ablation of it; where the recipe leaves Adam nobody races with Muon."""
    both = f"{CLOSED_FORM} + followed draws + {POSTERIOR}"
    for recipe, leading in ((free, both), (with_muon, f"{MUON}, {both}")):
        contestants = pilot_free_contestants(BASE, recipe, {CLOSED_FORM: 0.001, f"{MUON}, {CLOSED_FORM}": 0.001})
        assert {each.entry for each in contestants if each.role == "recipe"} == {leading}
        own = next(each for each in contestants if each.name == f"{leading}, 60 steps")
        assert own.settings == recipe.apply(BASE).replace(lr=0.001, steps=60, ema_half_life=own.settings.ema_half_life)
        controls = [each for each in contestants if each.entry == own.matched]
        assert {each.settings.optimizer for each in controls} == {own.settings.optimizer}
        assert {each.settings.steps for each in controls} == {36, 54, 60, 120}
        assert [each.settings.lr_final for each in controls].count(BASE.lr_final) == 1
    assert {each.role for each in contestants if each.entry == both} == {"ablation"}
    assert not any(each.settings.optimizer.name == "muon" for each in pilot_free_contestants(BASE, free, {}))


def test_the_recipe_has_targets_of_less_noise_or_races_beside_them(free):
    """Where it has them its matched control has them too; each set tries them at least once."""
    assert free.changes["target"] == "posterior"
    without = dataclasses.replace(free, changes={k: v for k, v in free.changes.items() if k != "target"})
    both = f"{CLOSED_FORM} + followed draws"
    for recipe, leading, other in ((free, f"{both} + {POSTERIOR}", both), (without, both, f"{both} + {POSTERIOR}")):
        contestants = pilot_free_contestants(BASE, recipe, {"base": 0.004, CLOSED_FORM: 0.001})
        assert {each.entry for each in contestants if each.role == "recipe"} == {leading}
        assert {each.entry for each in contestants if each.entry == other and each.role == "ablation"} == {other}
        own = next(each for each in contestants if each.name == f"{leading}, 60 steps")
        assert own.settings == recipe.apply(BASE).replace(lr=0.001, steps=60, ema_half_life=own.settings.ema_half_life)
        controls = [each for each in contestants if each.entry == own.matched]
        assert {each.role for each in controls} == {"matched"}
        assert {each.settings.steps for each in controls} == {36, 54, 60, 120}
        assert {each.settings.target for each in controls} == {own.settings.target}
        quiet = {each.name for each in contestants if each.settings.target != "sample"}
        if recipe is without:
            assert quiet == {f"{other}, 60 steps"}
        else:
            alone = [each for each in contestants if each.name in quiet and each.settings.predicts == "eps"]
            assert {each.entry for each in alone} == {f"uniform + {POSTERIOR}", f"followed draws + {POSTERIOR}"}
            assert {each.settings.lr for each in alone} == {0.004, BASE.lr}  # at both rates, as whoever draws otherwise


def small():
    base = BASE.replace(steps=30, ema_half_life=0.05)
    plan = race_plan("digits")
    return dataclasses.replace(plan, base=base, seeds=2, count=20, nfe=2, batch=32, every=10, horizons=(1.0,))


def test_the_race_and_its_cost(tmp_path, monkeypatch):
    plan, store, rows = small(), Store(tmp_path / "runs"), Rows(tmp_path / "rows.jsonl")
    classify = planning.set_classifier
    monkeypatch.setattr(planning, "set_classifier", lambda whole, store: classify(whole, store, steps=20))
    whole = planning.pilot_free_contestants
    few = (
        "uniform",
        "uniform + annealing",
        f"{CLOSED_FORM} + followed draws + {POSTERIOR}, 15 steps",
        f"{CLOSED_FORM}, uniform + {POSTERIOR}, 15 steps",
    )
    monkeypatch.setattr(
        planning, "pilot_free_contestants", lambda *a, **k: [c for c in whole(*a, **k) if c.name in few]
    )
    monkeypatch.setattr(rating, "families_of", lambda free: {CLOSED_FORM: {"predicts": free.changes["predicts"]}})
    before = race_dry_run(plan, store, rows, contestant_set="pilot-free")
    assert set(before) == {"target pilot", "learning rates", TURNS, *few}
    assert before["learning rates"][0] > 2 * before["uniform"][0] > 0
    assert not rows.path.exists()
    told = []
    result = run_race(plan, store, rows, contestant_set="pilot-free", say=told.append)
    assert any(line.startswith("learning rates: base 0.00") for line in told)
    assert any("the network corrects that denoiser" in line for line in told)
    assert set(race_dry_run(plan, store, Rows(rows.path), contestant_set="pilot-free").values()) == {(0.0, 0.0)}
    # Whatever rate the control races at, the target is that of the plan's own.
    assert provenance(result)["target_settings"] == plan.base.replace(seed=plan.target_seed).texts
    table = race_table(result)
    own = table[table["against"] == MATCHED]
    assert own["contestant"].unique().tolist() == [few[2]]
    assert own["control"].tolist() == [few[3]]
    assert set(table[table["contestant"] == "uniform"]["against"]) == {AGAINST["control"], AGAINST["annealed"]}
    # What the recipe's making takes is counted for it, and measured once.
    (made,) = [row["values"]["seconds"] for row in rows.finished() if row["spec"].get("row") == "recipe"]
    assert made > 0
    assert result["pilot_seconds"].to_series().to_dict() == {name: made * (name == few[2]) for name in few}
    assert (
        table["pilot_seconds_speedup"].lt(table["seconds_speedup"]).tolist() == (table["contestant"] == few[2]).tolist()
    )
    # It begins at the closed form's loss: the first record is below what the control has there.
    assert float(result["loss"].sel(contestant=few[2], seed=0)[0]) < float(
        result["loss"].sel(contestant="uniform", seed=0)[0]
    )
    with pytest.raises(UserError, match="pilot-free contestants race no recipes of others"):
        run_race(plan, store, rows, contestant_set="pilot-free", foreign={"x": Recipe.paper()})


def test_the_rate_that_reaches_the_target_first_is_chosen(free, with_muon, monkeypatch):
    """The lowest or the highest is not, before the next one beyond it has been tried too."""
    plan, watch = small(), object()
    families = ("base", CLOSED_FORM, EDM, MUON, f"{MUON}, {CLOSED_FORM}")
    pilot, *trials = rates_of(plan, with_muon, None, None)[0]
    assert pilot.settings == plan.base.replace(seed=plan.target_seed)
    assert [run.name for run in trials] == [
        f"{name} at {factor:g} of the rate" for name in families for factor in RATES
    ]
    assert {run.settings.seed for run in trials} == {plan.rate_seed}
    assert not {plan.rate_seed} & {plan.target_seed, plan.pilot_seed, *range(plan.seeds)}
    assert len(rates_of(plan, free, None, None)[0]) == 1 + 3 * len(RATES)
    assert not any(MUON in each.name for each in race_contestants(plan, "pilot-free", unknown(), free=free))

    # The target, at 18 of 30 steps of the pilot, is 0.6. The faster, the sooner, up to four times the rate.
    curves = {0.5: [1, 0.7, 0.65], 1.0: [1, 0.5, 0.4], 2.0: [0.9, 0.4, 0.35], 4.0: [0.5, 0.4, 0.38]}
    slow = {0.5: [1, 0.9, 0.85], 1.0: [1, 0.9, 0.8], 2.0: [1, 0.9, 0.9]}  # who never arrives is judged by its end
    known, asked = set(RATES), []

    def found(_, run, rows):
        if run.settings.seed == plan.target_seed:
            return {"steps": [10, 20, 30], "loss": [1.4, 0.4, 0.3], "diverged_at": None}
        factor = round(run.settings.lr / plan.base.lr, 3)
        if factor not in known:
            return None
        asked.append(factor)
        loss = (slow if run.name.startswith(f"{MUON} at") else curves).get(factor, [0.1, 0.1, 0.1])
        return {"steps": [10, 20, 30], "loss": loss, "diverged_at": 3 if factor == 8 else None}

    monkeypatch.setattr(rating, "recorded", found)
    for beyond in (4, 8):
        missing, rates = rates_of(plan, with_muon, watch, None)
        assert [run.name for run in missing] == [
            f"{name} at {beyond:g} of the rate" for name in families if name != MUON
        ]
        assert not rates
        known.add(beyond)
    missing, rates = rates_of(plan, with_muon, watch, None)
    assert not missing
    assert rates == {name: plan.base.lr * (1 if name == MUON else 4) for name in families}
    known.update(2.0**k for k in range(20))
    curves.update({2.0**k: [0.5 - k / 100, 0.1, 0.1] for k in range(2, 20)})
    curves[8.0] = [0.1, 0.1, 0.1]
    rates_of(plan, with_muon, watch, None)
    assert max(asked) <= 2.0 ** (MOST_RATES - 1)


def test_who_was_fastest_races_again_on_fresh_seeds(tmp_path, monkeypatch, with_muon):
    plan, store, rows = small(), Store(tmp_path / "runs"), Rows(tmp_path / "rows.jsonl")
    plan = dataclasses.replace(plan, horizons=(0.5, 1.0), fresh_seeds=2)
    classify = planning.set_classifier
    monkeypatch.setattr(planning, "set_classifier", lambda whole, store: classify(whole, store, steps=20))
    whole = planning.pilot_free_contestants
    leading = f"{CLOSED_FORM} + followed draws + {POSTERIOR}, 15 steps"
    few = ("uniform", "uniform + annealing", "uniform + annealing, 15 steps", "followed draws, 15 steps", leading)
    controls = [f"{CLOSED_FORM}, uniform + {POSTERIOR}{what}" for what in ("", ", 15 steps", ", constant rate")]
    kept = (*few, *controls)
    monkeypatch.setattr(
        planning, "pilot_free_contestants", lambda *a, **k: [c for c in whole(*a, **k) if c.name in kept]
    )
    monkeypatch.setattr(rating, "families_of", lambda free: {CLOSED_FORM: {"predicts": free.changes["predicts"]}})
    before = race_dry_run(plan, store, rows, contestant_set="fresh-seeds")
    assert before["uniform, fresh seeds"][0] > 0
    first = run_race(plan, store, rows, contestant_set="pilot-free")
    count = len(rows)
    told = []
    result = run_race(plan, store, rows, contestant_set="fresh-seeds", say=told.append)
    table = race_table(first)
    goals = table[(table["role"] == "recipe") & (table["against"] != AGAINST["density"])]
    raced = result["contestant"].values.tolist()
    assert set(raced) == {leading, *goals["control"]}
    assert len(raced) == 4
    assert [str(each) for each in result["role"].values] == ["control", "annealed", "matched", "recipe"]
    assert result["seed"].values.tolist() == [4000, 4001]
    assert not {*plan.fresh} & {plan.target_seed, plan.pilot_seed, plan.rate_seed, *range(plan.seeds)}
    assert any(line.startswith("on fresh seeds: uniform;") for line in told)
    assert (result["target_loss"] == first["target_loss"]).all()  # the target does not move
    assert result.sizes["seed"] * len(raced) <= len(rows) - count  # and all else is of the rows there were
    after = race_dry_run(plan, store, Rows(rows.path), contestant_set="fresh-seeds")
    assert set(after.values()) == {(0.0, 0.0)}
    assert {name for name in after if "fresh" in name} == {f"{name}, fresh seeds" for name in raced}
    stand_in = leaders(whole(BASE, with_muon, {}), None)
    assert stand_in[2].entry == stand_in[3].matched
    assert [each.role for each in stand_in] == [
        "control",
        "annealed",
        "matched",
        "recipe",
    ]
