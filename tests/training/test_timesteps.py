import numpy as np
import pytest
import torch
from registered import entries
from scipy import stats

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps import (
    BINS,
    TIMESTEPS,
    TimestepSampler,
    audit_timesteps,
    effective_share,
    total_variation,
)
from consistency_lab.training.timesteps.base import check_draws

STEPS = 1000
VARIANTS = [
    "clts(center=0.3, width=0.2)",
    "clts(width=0.05, horizon=0.5, floor=0.0)",
    "clts(center=0.7, width=0.1, axis='noise_rate')",
    "density(values=[1, 4, 0, 2], floor=0.1)",
    "speed",
    "speed(tau=0.3333, k=2.0, dual=False)",
    "beta(a=0.8, b=2.0)",
    "logit_normal(mean=-0.5)",
    "edm_lognormal",
    "loss_second_moment",
    "loss_second_moment(cells=100)",
    "loss_root",
    "clusters",
    "clusters(patience=15)",
]
CHOICES = entries(TIMESTEPS, VARIANTS)


def build(text, schedule="linear"):
    return TIMESTEPS.build(text, SCHEDULES.build(schedule), STEPS)


def play(sampler, steps, loss=lambda t: (1.1 - t) ** 2, batch=256):
    """Let a sampler see its own draws with a known loss."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        t, _ = sampler.sample(batch, step, generator)
        sampler.update(t, loss(t))


def test_uniform_draws_keep_their_bits():
    # Runs in stores were trained with these; and a spec that says "uniform" says nothing more.
    t, weight = build("uniform").sample(3, 0, torch.Generator().manual_seed(7))
    golden = ["0x1.1f1b2817874aap-2", "0x1.193d7c010bd0fp-2", "0x1.b9d8153180ad7p-1"]
    assert [x.hex() for x in t.tolist()] == golden
    assert torch.equal(weight, torch.ones(3, dtype=torch.float64))
    assert TIMESTEPS.resolve("uniform").options == {}


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("step", [0, 500, 1000, 2500])
def test_draws_follow_the_density(text, step):
    sampler = build(text)
    play(sampler, min(step, 300))
    masses = sampler.masses(step)
    assert masses.shape == (BINS,)
    assert (masses >= 0).all()
    assert masses.sum() == pytest.approx(1.0, abs=1e-12)
    n = 10**6
    t, weight = sampler.sample(n, step, torch.Generator().manual_seed(step))
    cell = np.clip(((t.numpy() - sampler.low) / (sampler.high - sampler.low) * BINS).astype(int), 0, BINS - 1)
    expected_weight = 1 / (BINS * masses[cell]) if sampler.weighted else np.ones(n)
    assert np.allclose(weight, expected_weight, rtol=1e-12)
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
        ("clts(axis='snr')", "axis of clts"),
        ("clts(floor=-0.5)", "lambda"),  # lambda of 1.5
        ("clts(floor=0.001, weighted=True)", "floor of at least 0.01"),
        ("density(values=[1, 2], weighted=True)", "floor of at least 0.01"),
        ("loss_second_moment(floor=0.001)", "floor of at least 0.01"),
        ("loss_second_moment(history=0)", "history"),
        ("loss_second_moment(cells=7)", "divides"),
        ("loss_root(exponent=0)", "exponent"),
        ("clusters(patience=0)", "patience"),
        ("clusters(axis='x')", "axis of clusters"),
        ("speed(k=0)", "above 0"),
        ("speed(tau=0.0)", "tau"),
        ("beta(a=1)", "needs b"),
        ("beta(a=0, b=1)", "above 0"),
        ("logit_normal(width=0)", "above 0"),
        ("edm_lognormal(width=0)", "above 0"),
        ("edm_lognormal(mean=50.0, width=0.1)", "no mass"),
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


def test_stratified_draws_fall_one_into_each_stratum():
    sampler, n, repeats = build("stratified"), 50, 20_000
    generator = torch.Generator().manual_seed(0)
    t = torch.stack([sampler.sample(n, 0, generator)[0] for _ in range(repeats)]).numpy()
    place = (t - sampler.low) / (sampler.high - sampler.low)
    assert (np.floor(place * n) == np.arange(n)).all()
    # Within its stratum each draw is uniform: 10^6 draws, 20 bins a stratum.
    inside = np.floor((place * n - np.arange(n)) * 20).astype(int)
    pvalues = [stats.chisquare(np.bincount(inside[:, i], minlength=20)).pvalue for i in range(n)]
    assert min(pvalues) > 1e-4 / n
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "text",
    [
        "clts(floor=0.05, weighted=True)",
        "density(values=[1, 4, 0, 2], floor=0.1, weighted=True)",
        "edm_lognormal(floor=0.05, weighted=True)",
        "loss_second_moment(cells=100)",
        "loss_root",
    ],
)
def test_the_weighted_loss_is_the_uniform_one_in_expectation(text):
    sampler, step = build(text), 900
    loss = lambda t: (1.1 - t) ** 2  # noqa: E731
    if text.startswith("loss"):
        play(sampler, 100)
        assert total_variation(sampler.masses(step), np.full(BINS, 1 / BINS)) > 0.1
    # Exactly, cell by cell ...
    masses = sampler.masses(step)
    assert (masses * loss(sampler.centres) / (BINS * masses)).sum() == pytest.approx(loss(sampler.centres).mean())
    # ... and in what is drawn.
    t, weight = sampler.sample(10**6, step, torch.Generator().manual_seed(0))
    values = (weight * loss(t)).numpy()
    uniform = loss(np.linspace(sampler.low, sampler.high, 10**5)).mean()
    assert abs(values.mean() - uniform) < 4 * values.std() / 1000
    assert weight.max() <= 1 / sampler.floor * (1 + 1e-9)


def test_speed_mirrors_half_of_a_batch():
    sampler = build("speed")
    t = sampler.sample(10, 0, torch.Generator().manual_seed(0))[0].numpy()
    place = (t - sampler.low) / (sampler.high - sampler.low) * BINS
    mirror = sampler.mirror
    assert np.allclose(place[5:], np.where(place[:5] < mirror, mirror - place[:5], place[:5] - mirror))
    assert len(sampler.sample(7, 0, torch.Generator())[0]) == 7
    # tau* on DDPM's schedule, from its table: the first step at which sqrt(1 - alpha-bar) grows by less than 1e-4.
    rate = np.sqrt(1 - np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    assert abs(mirror - (np.gradient(rate) < 1e-4).argmax()) <= 2
    plain = build("speed(dual=False)")
    assert plain.masses(0)[0] / plain.masses(0)[-1] == pytest.approx(5)
    assert plain.pdf(np.array([0.69]), 0) == pytest.approx(5 * plain.pdf(np.array([0.71]), 0))


def test_edm_log_normal_is_one_density_of_noise_on_every_schedule():
    for name in SCHEDULES.names():
        sampler = build("edm_lognormal", name)
        t, _ = sampler.sample(20_000, 0, torch.Generator().manual_seed(0))
        log_s = torch.log(sampler.schedule.noise_to_signal(t)).numpy()
        low, high = (float(torch.log(sampler.schedule.noise_to_signal(x))) for x in (sampler.low, sampler.high))
        a, b = (low + 1.2) / 1.2, (high + 1.2) / 1.2
        assert stats.kstest(log_s, stats.truncnorm(a, b, -1.2, 1.2).cdf).pvalue > 1e-3, name
        assert sampler.lost == pytest.approx(stats.norm.cdf(a) + stats.norm.sf(b), rel=1e-6)
    # With the Jacobian written out: p(t) = N(ln s(t)) |d ln s / d t|.
    sampler = build("edm_lognormal", "flow")
    t = sampler.centres[100:-100]
    jacobian = 1 / t + 1 / (1 - t)
    expected = stats.norm.pdf(np.log(t / (1 - t)), -1.2, 1.2) * jacobian / (1 - sampler.lost)
    assert np.allclose(sampler.pdf(t, 0), expected, rtol=1e-3)


def test_beta_and_logit_normal_are_their_densities():
    sampler = build("beta(a=0.8, b=2.0)")
    assert np.allclose(sampler.pdf(sampler.centres[5:], 0), stats.beta.pdf(sampler.centres[5:], 0.8, 2.0), rtol=0.02)
    sampler = build("logit_normal(mean=0.5, width=0.7)", "flow")
    t = sampler.centres[50:-50]
    assert np.allclose(sampler.pdf(t, 0), stats.norm.pdf(np.log(t / (1 - t)), 0.5, 0.7) / (t * (1 - t)), rtol=1e-2)


def test_noise_rate_axis_is_a_gaussian_of_the_noise_rate():
    sampler = build("clts(center=0.7, width=0.1, axis='noise_rate', floor=0.0)")
    bar = 1 - sampler.schedule.alpha(torch.from_numpy(sampler.centres)).numpy() ** 2
    expected = stats.norm.pdf(np.sqrt(bar), 0.7, 0.1)
    assert np.allclose(sampler.masses(10**4), expected / expected.sum())


def test_loss_second_moment_waits_and_then_follows_the_losses():
    sampler = build("loss_second_moment(history=4, cells=10, floor=0.2)")
    assert (sampler.masses(0) == 1 / BINS).all()
    bounds = sampler.edges[::100]
    middle = torch.from_numpy((bounds[:-1] + bounds[1:]) / 2)
    for k in range(6):  # of which the last four count
        sampler.update(middle, torch.arange(1.0, 11.0) * (100 if k < 2 else k))
        assert (sampler.masses(0) == 1 / BINS).all() == (k < 3)
    root = np.arange(1, 11) * np.sqrt(np.mean(np.array([2, 3, 4, 5]) ** 2))
    expected = 0.2 / 10 + 0.8 * root / root.sum()
    assert np.allclose(sampler.masses(0).reshape(10, 100).sum(1), expected)
    # A batch that brings more than the history to a cell: its last ones stay, and a loss that is no number changes nothing.
    before = sampler.losses.copy()
    sampler.update(middle[:1].repeat(9), torch.arange(9.0))
    assert sorted(sampler.losses[0]) == [5, 6, 7, 8]
    assert (sampler.losses[1:] == before[1:]).all()
    sampler.update(middle, torch.full((10,), float("nan")))
    assert sorted(sampler.losses[0]) == [5, 6, 7, 8]


def test_the_root_of_the_loss_has_the_least_gradient_noise_of_a_linear_model():
    # r = w - y(t) with y of variance v(t): one weight, the same Jacobian at every t, so that E g^2 = 4 E L = 4 (bias^2 + v).
    rng = np.random.default_rng(0)
    sampler, other = (
        build("loss_root(history=400, cells=10, floor=0.01)"),
        build("loss_second_moment(history=400, cells=10)"),
    )
    t = torch.from_numpy(np.repeat((np.arange(10) + 0.5) / 10, 400) * (sampler.high - sampler.low) + sampler.low)
    deviation = np.repeat(np.geomspace(3.0, 0.1, 10), 400)
    loss = torch.from_numpy((deviation * rng.standard_normal(4000)) ** 2)
    for each in (sampler, other):
        each.update(t, loss)
    variance = [
        float((np.geomspace(3.0, 0.1, 10) ** 2 / 100 / p).sum())
        for p in (
            sampler.masses(0).reshape(10, 100).sum(1),
            other.masses(0).reshape(10, 100).sum(1),
            np.full(10, 0.1),
        )
    ]
    least = np.geomspace(3.0, 0.1, 10).mean() ** 2
    assert variance[0] == pytest.approx(least, rel=0.02)
    assert variance[0] < 0.9 * variance[1]
    assert variance[0] < 0.7 * variance[2]


def test_clusters_join_when_the_newest_stops_improving():
    sampler = build("clusters(clusters=4, patience=3)")
    sizes = [int((sampler.masses(0) > 0).sum())]
    easy, hard = torch.tensor([0.9, 0.1]).double(), torch.tensor([1.0, 5.0])
    for k in range(5):
        sampler.update(easy, hard / (k + 1))  # improves
    assert sampler.masses(0)[:750].sum() == 0
    for _ in range(3):
        sampler.update(easy, hard)
    sizes.append(int((sampler.masses(0) > 0).sum()))
    for _ in range(10):
        sampler.update(easy, hard)  # no draw in the newest cluster, (0.5, 0.75): nothing is learnt about it
    sizes.append(int((sampler.masses(0) > 0).sum()))
    assert sizes == [250, 500, 500]
    everywhere = torch.from_numpy(sampler.centres)
    for _ in range(20):
        sampler.update(everywhere, torch.ones(BINS))
    assert np.allclose(sampler.masses(0), 1 / BINS)
    levels = build("clusters(clusters=5, axis='log_snr')")
    assert levels.cluster.min() == 0
    assert (np.diff(levels.cluster) >= 0).all()


@pytest.mark.parametrize("text", CHOICES)
def test_samplers_resume_to_the_bit(text, tmp_path):
    first, second = build(text), build(text)
    play(first, 60)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    if text in ("loss_second_moment(cells=100)", "loss_root", "clusters(patience=15)"):
        assert total_variation(first.masses(0), np.full(BINS, 1 / BINS)) > 0.05  # there was something to resume
    for sampler in (first, second):
        play(sampler, 10)
    draws = [sampler.sample(100, 70, torch.Generator().manual_seed(2)) for sampler in (first, second)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


def test_audit_says_what_is_drawn():
    texts = ["uniform", "clts(center=0.3, width=0.2, floor=0.0)", "density(values=[0, 0, 1], floor=0.0)", "clusters"]
    audit = audit_timesteps(texts, SCHEDULES.build("linear"), STEPS, points=11, bands=10)
    assert np.allclose(audit["share"].sum("t"), 1)
    uniform, clts, half, _ = (audit.sel(sampler=text) for text in texts)
    assert np.allclose(uniform["total_variation"], 0, atol=1e-12)
    assert np.allclose(uniform["effective_share"], 1)
    # lambda grows linearly, and so does the distance: .35 at the end for a width of .2.
    assert np.allclose(clts["total_variation"], float(clts["total_variation"][-1]) * audit["step"] / 999, atol=1e-9)
    assert float(clts["run_total_variation"]) == pytest.approx(float(clts["total_variation"][-1]) / 2, rel=0.01)
    assert float(half["effective_share"][0]) == 0  # the half that is never drawn
    # Two values of the density, 2 and 1/2 of uniform on a third and two thirds: 1 / E_u[u / p].
    masses = np.where(np.arange(BINS) < 400, 1.75, 0.5) / BINS
    assert effective_share(masses / masses.sum()) == pytest.approx(1 / (0.4 / 1.75 + 0.6 / 0.5))
    played = audit_timesteps(["clusters(patience=5)"], SCHEDULES.build("linear"), 300, loss=lambda t: np.ones_like(t))
    assert float(played["total_variation"][0, 0]) > 0.8
    assert float(played["total_variation"][0, -1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match="bands that divide"):
        audit_timesteps(texts, SCHEDULES.build("linear"), STEPS, bands=7)


class Own(TimestepSampler):
    """A user's sampler that is uniform until a step, and then what its class says."""

    wrong = np.full(BINS, 1 / BINS)
    since = 3

    def masses(self, step):
        return self.wrong if step >= self.since else np.full(BINS, 1 / BINS)


def spoiled(value, cells=1):
    masses = np.full(BINS, 1 / BINS)
    masses[:cells] = value
    return masses


WRONG = {
    "the sum is 283": (np.full(BINS, 0.283), r"sum to 283 at step 3 and not to 1; divide them by their sum"),
    "a little off": (np.full(BINS, 1.00001 / BINS), r"sum to 1\.00001 at step 3"),
    "one NaN": (spoiled(np.nan), r"1 of the 1000 masses of the sampler Own are negative or not finite"),
    "infinite": (spoiled(np.inf), "not finite"),
    "negative": (np.append([-0.001, 0.003], np.full(BINS - 2, 1 / BINS)), "1 of the 1000 masses"),
    "half as many": (np.full(500, 1 / 500), r"have the shape \(500,\)"),
    "a column": (np.full((BINS, 1), 1 / BINS), r"have the shape \(1000, 1\)"),
    "words": (["a"] * BINS, "are not numbers"),
    "nothing": (None, "are not numbers|have the shape"),
}


@pytest.fixture
def own(monkeypatch):
    """Register a user's sampler for one test."""

    def register(wrong, since=3):
        kind = type("Own", (Own,), {"wrong": wrong, "since": since})
        monkeypatch.setitem(TIMESTEPS._builders, "own", kind)
        return kind

    return register


@pytest.mark.parametrize("name", WRONG)
def test_masses_that_are_no_density_are_refused_wherever_they_are_read(name, own):
    wrong, message = WRONG[name]
    own(wrong, since=0)
    with pytest.raises(UserError, match=message.replace("step 3", "step 0")):
        build("own")
    own(wrong)
    sampler, generator = build("own"), torch.Generator().manual_seed(0)
    for step in range(3):
        sampler.sample(4, step, generator)
    for read in (
        lambda: sampler.sample(4, 3, generator),
        lambda: sampler.pdf(np.array([0.5]), 3),
        lambda: audit_timesteps(["own"], SCHEDULES.build("linear"), 5, points=5),
    ):
        with pytest.raises(UserError, match=message):
            read()


def test_weights_are_bounded_by_the_floor_that_was_promised(own):
    kind = own(spoiled(0.0, 500) * 2)
    schedule, generator = SCHEDULES.build("linear"), torch.Generator().manual_seed(0)
    assert kind(schedule, STEPS).checked_masses(3).sum() == pytest.approx(1)  # half of the times are never drawn
    with pytest.raises(UserError, match=r"lowest mass .* is 0 at step 3, below its floor of 0\.1 / 1000"):
        kind(schedule, STEPS, 0.1, True).sample(4, 3, generator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, torch.float32])
def test_masses_may_come_in_any_number_type(own, dtype):
    raw = np.random.default_rng(0).random(BINS) + 0.1
    masses = (raw / raw.sum()).astype(dtype) if isinstance(dtype, type) else torch.from_numpy(raw / raw.sum()).to(dtype)
    own(masses, since=0)
    assert build("own").pdf(build("own").centres, 0) == pytest.approx(raw / raw.mean() / 0.999, rel=1e-5)


def test_what_a_sampler_draws_itself_is_checked():
    sampler, good = build("uniform"), torch.full((4,), 0.5, dtype=torch.float64)
    check_draws(sampler, good, torch.ones(4), 4)
    check_draws(sampler, torch.tensor([0.001, 1.0, 0.5, 0.5]), torch.ones(4), 4)
    for t, weight, message in [
        (good.clone().fill_(1.5), torch.ones(4), r"from 1\.5 to 1\.5; they must lie in \[0\.001, 1\]"),
        (torch.tensor([0.5, 0.0, 0.5, 0.5]), torch.ones(4), "must lie in"),
        (torch.tensor([0.5, torch.nan, 0.5, 0.5]), torch.ones(4), "must lie in"),
        (good[:3], torch.ones(4), r"times .* shape \(4,\), not \(3,\)"),
        (good[:, None], torch.ones(4), r"not \(4, 1\)"),
        (good.numpy(), torch.ones(4), "not ndarray"),
        (good, torch.ones(()), r"weights .* not \(\)"),
        (good, 1.0, "not float"),
        (good, torch.tensor([1.0, -1.0, 1.0, 1.0]), "1 of 4 samples a weight that is negative or not finite"),
        (good, torch.tensor([1.0, torch.nan, torch.inf, 1.0]), "2 of 4"),
    ]:
        with pytest.raises(UserError, match=message):
            check_draws(sampler, t, weight, 4)


def test_what_is_no_sampler_is_refused(monkeypatch):
    monkeypatch.setitem(TIMESTEPS._builders, "own", lambda schedule, steps: "half past")
    with pytest.raises(UserError, match="subclass TimestepSampler"):
        build("own")


@pytest.mark.parametrize("values", ["'abc'", "[[1, 2], [3]]", "[1, None]", "[1, 'x']"])
def test_values_of_a_density_are_numbers(values):
    with pytest.raises(UserError, match=r"list of numbers|at least two values"):
        build(f"density(values={values})")


@pytest.mark.parametrize("loss", [lambda t: np.full(len(t), np.nan), lambda t: 1.0, lambda t: t[:3]])
def test_an_audit_plays_no_loss_that_is_none(loss):
    with pytest.raises(UserError, match="one finite number per time: for 16 times"):
        audit_timesteps(["loss_root"], SCHEDULES.build("linear"), 5, loss=loss, batch=16)


def test_losses_that_do_not_belong_to_their_times_are_refused():
    for text in ("loss_root", "clusters"):
        with pytest.raises(UserError, match="one loss per time"):
            build(text).update(torch.full((4,), 0.5), torch.tensor(1.0))
