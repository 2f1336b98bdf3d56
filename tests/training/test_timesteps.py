import numpy as np
import pytest
import torch
from scipy import stats

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps import BINS, TIMESTEPS, total_variation

STEPS = 1000
CHOICES = [
    "uniform",
    "clts(center=0.3, width=0.2)",
    "clts(width=0.05, horizon=0.5, floor=0.0)",
    "density(values=[1, 4, 0, 2], floor=0.1)",
]


def build(text, schedule="linear"):
    return TIMESTEPS.build(text, SCHEDULES.build(schedule), STEPS)


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("step", [0, 500, 1000, 2500])
def test_draws_follow_the_density(text, step):
    sampler = build(text)
    masses = sampler.masses(step)
    assert masses.shape == (BINS,)
    assert (masses >= 0).all()
    assert masses.sum() == pytest.approx(1.0, abs=1e-12)
    n = 10**6
    t, weight = sampler.sample(n, step, torch.Generator().manual_seed(step))
    assert torch.equal(weight, torch.ones_like(weight))
    cell = np.clip(((t.numpy() - sampler.low) / (sampler.high - sampler.low) * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(cell, minlength=BINS)
    assert counts[masses == 0].sum() == 0
    likely = masses * n >= 10
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(masses[likely], masses[~likely].sum()) * n
    keep = expected > 0
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES.names())
@pytest.mark.parametrize("text", CHOICES)
def test_pdf_integrates_to_one_on_every_schedule(text, schedule):
    sampler = build(text, schedule)
    assert sampler.pdf(sampler.centres, 700).sum() * (sampler.high - sampler.low) / BINS == pytest.approx(1.0)
    assert (sampler.pdf(np.array([-0.1, 1.1]), 700) == 0).all()
    t, _ = sampler.sample(1000, 700, torch.Generator().manual_seed(0))
    assert t.min() >= sampler.low
    assert t.max() <= sampler.high


def test_clts_goes_from_uniform_to_its_gaussian():
    sampler, uniform = build("clts(center=0.3, width=0.2, floor=0.0)"), np.full(BINS, 1 / BINS)
    assert total_variation(sampler.masses(0), uniform) == 0
    # Against the formula, written out: (1 - lambda) U + lambda N.
    gaussian = stats.norm.pdf(sampler.centres, 0.3, 0.2)
    for step, share in [(250, 0.25), (1000, 1.0), (3000, 1.0)]:
        assert np.allclose(sampler.masses(step), (1 - share) * uniform + share * gaussian / gaussian.sum(), atol=1e-15)
    # The published widths do something: total variation .35 at width .2, and next to nothing (.03) at width 1.
    assert total_variation(sampler.masses(1000), uniform) == pytest.approx(0.35, abs=0.03)
    assert total_variation(build("clts(center=0.3, width=1.0, floor=0.0)").masses(1000), uniform) < 0.04
    assert build("clts(floor=0.1)").masses(10**6).min() >= 0.1 / BINS


def test_horizon_is_a_share_of_the_run():
    half = build("clts(horizon=0.5, floor=0.0)")
    assert half.share(250) == pytest.approx(0.5)
    assert half.share(500) == half.share(900) == 1.0


def test_density_is_linear_between_its_values():
    sampler = build("density(values=[0, 1])")
    assert np.allclose(sampler.masses(0), 2 * (np.arange(BINS) + 0.5) / BINS**2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clts(width=0)", "width"),
        ("clts(horizon=0)", "horizon"),
        ("clts(floor=1.5)", "floor"),
        ("clts(center=50.0, width=0.01)", "no mass"),
        ("clts(centre=0.3)", "Did you mean 'center'"),
        ("density", "needs values"),
        ("density(values=[1])", "two values"),
        ("density(values=[1, -1])", "negative"),
        ("density(values=[0, 0])", "zero"),
        ("unifrom", "Did you mean 'uniform'"),
    ],
)
def test_impossible_samplers_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        build(text)
