import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.timesteps.base import BINS

STEPS = 200


def between(low, high):
    return st.floats(low, high, allow_nan=False)


def text(name, **options):
    """Texts of a choice with those options."""
    return st.fixed_dictionaries(options).map(lambda d: f"{name}({', '.join(f'{k}={v!r}' for k, v in d.items())})")


floors = {"floor": between(0.02, 1.0), "weighted": st.booleans()}
texts = st.one_of(
    st.sampled_from(["uniform", "stratified", "speed", "clusters"]),
    text("clts", center=between(0.0, 1.0), width=between(0.02, 1.0), **floors),
    text("beta", a=between(0.3, 6.0), b=between(0.3, 6.0), **floors),
    text("logit_normal", mean=between(-2.0, 2.0), width=between(0.2, 3.0), **floors),
    text("edm_lognormal", mean=between(-2.0, 1.0), width=between(0.3, 3.0), **floors),
    text("density", values=st.lists(between(0.1, 9.0), min_size=2, max_size=9).map(tuple), **floors),
    text("loss_root", exponent=between(0.1, 2.0), **floors),
    text("loss_second_moment", **floors),
)
schedules = st.sampled_from(["linear", "cosine", "edm", "flow"])


def built(text, schedule, seed):
    """The sampler, those that adapt after some losses."""
    sampler = TIMESTEPS.build(text, SCHEDULES.build(schedule), STEPS)
    rng = np.random.default_rng(seed)
    t = torch.from_numpy(rng.uniform(sampler.low, sampler.high, 3000))
    sampler.update(t, torch.from_numpy(rng.gamma(2.0, 1.0, 3000)) * (1 + t))
    return sampler


@given(texts, schedules, st.integers(0, 2 * STEPS), st.integers(0, 2**32 - 1))
def test_a_density_over_time_integrates_to_one_where_the_schedule_has_times_and_is_zero_elsewhere(
    text, schedule, step, seed
):
    sampler = built(text, schedule, seed)
    density = sampler.pdf(sampler.centres, step)
    assert (density >= 0).all()
    assert density @ np.diff(sampler.edges) == pytest.approx(1.0, abs=1e-6)
    assert sampler.pdf(np.array([sampler.low - 1e-3, sampler.high + 1e-3]), step).tolist() == [0.0, 0.0]
    if sampler.floor:
        assert density.min() >= sampler.floor / (sampler.high - sampler.low) * (1 - 1e-6)


@given(texts, schedules, st.integers(0, 2 * STEPS), st.integers(0, 2**32 - 1))
def test_draws_follow_the_density_and_their_weights_have_mean_one(text, schedule, step, seed):
    sampler, n = built(text, schedule, seed), 4000
    t, weight = sampler.sample(n, step, torch.Generator().manual_seed(seed))
    masses = sampler.checked_masses(step)
    cells = np.clip(((t.numpy() - sampler.low) / (sampler.high - sampler.low) * BINS).astype(int), 0, BINS - 1)
    assert (masses[cells] > 0).all()
    if sampler.weighted:
        width = (sampler.high - sampler.low) / BINS
        assert np.allclose(weight, 1 / (BINS * sampler.pdf(sampler.centres, step)[cells] * width))
        assert masses @ (1 / (BINS * masses)) == pytest.approx(1.0)
        spread = np.sqrt(max(masses @ (1 / (BINS * masses)) ** 2 - 1, 0.0) / n)
        assert abs(float(weight.mean()) - 1) <= 7 * spread + 1e-9
    else:
        assert bool((weight == 1).all())
    group = np.minimum((np.cumsum(masses) - masses / 2) * 20, 19).astype(int)  # some twenty groups of like probability
    expected, found = (
        np.bincount(group, weights=x, minlength=20) for x in (masses * n, np.bincount(cells, minlength=BINS))
    )
    met = expected > 5
    chi_square = ((found - expected)[met] ** 2 / expected[met]).sum()
    # Speed draws in pairs that mirror each other, which doubles it at most.
    assert chi_square <= 2 * stats.chi2.isf(1e-9, max(met.sum() - 1, 1))


seeds = st.none() | st.integers(0, 2**64 - 1)
loop = {
    "steps": st.integers(1, 10**9),
    "batch": st.integers(1, 10**6),
    "flip": st.booleans(),
    "lr": between(1e-9, 10.0),
    "lr_warmup": st.integers(0, 10**6),
    "lr_final": between(0.0, 2.0),
    "clip_norm": between(0.0, 1e6),
    "ema_half_life": between(1e-6, 10.0),
    "precision": st.sampled_from(["float32", "tf32", "bfloat16"]),
    "snapshots": st.integers(0, 100),
    "seed": st.integers(0, 2**64 - 1),
    "init_seed": seeds,
    "order_seed": seeds,
    "noise_seed": seeds,
}
diffusion = loop | {
    "network": st.sampled_from(["unet", "mlp"]) | text("unet", width=st.integers(1, 512), attention=st.just((0, 1))),
    "optimizer": st.sampled_from(["adam", "sgd(momentum=0.9)"]) | text("adamw", weight_decay=between(0.0, 1.0)),
    "timesteps": texts,
    "schedule": schedules | text("edm", sigma_min=between(1e-3, 0.1)),
    "predicts": st.sampled_from(["eps", "x0", "v", "flow"]),
    "objective": st.sampled_from(["eps", "x0", "v", "flow"]),
    "weighting": st.sampled_from(["none", "p2", "speed"]) | text("min-snr", gamma=between(0.1, 20.0)),
    "conditional": st.booleans(),
    "label_dropout": between(0.0, 1.0),
    "lockstep": st.sampled_from(["", "2/8"]),
}
made = st.one_of(
    st.tuples(st.just(TrainingSettings), st.fixed_dictionaries({}, optional=diffusion)),
    st.tuples(st.sampled_from([GANSettings, VAESettings]), st.fixed_dictionaries({}, optional=loop)),
)


@given(made)
def test_settings_come_back_from_text_from_json_and_from_their_spec(asked):
    kind, given_as = asked
    settings = kind.of(**given_as)
    assert kind.of(**settings.values) == settings
    assert kind.of(**settings.texts) == settings
    assert kind.of(**json.loads(json.dumps(settings.texts))) == settings
    spec = settings.spec()
    again = kind.from_spec(json.loads(json.dumps(spec)))
    assert json.loads(json.dumps(again.spec())) == json.loads(json.dumps(spec))
    assert again.seeds == settings.seeds
    assert settings.replace(steps=7).replace(steps=settings.steps) == settings


wrong = st.sampled_from(["NaN", "-1", "null", '"10"', "[]", "{}", "true", "[" * 10_000])


@given(made, wrong, st.sampled_from(["steps", "lr", "seed", "ema_half_life"]))
def test_a_settings_file_is_read_or_named(tmp_path_factory, asked, value, key):
    kind, given_as = asked
    path = tmp_path_factory.getbasetemp() / "settings.json"
    path.write_text(json.dumps(kind.of(**given_as).texts))
    assert kind.read(path) == kind.of(**given_as)
    path.write_text(f'{{"{key}": {value}}}')
    with pytest.raises(UserError, match=r"the settings file .*settings\.json"):
        kind.read(path)
