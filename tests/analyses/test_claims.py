"""Verdicts on claims: whichever way the rows point, the verdict points there too, and says the numbers that it rests on."""

import itertools
import json

import numpy as np
import pytest

from consistency_lab.paper.plots.frames import MissingRows
from consistency_lab.paper.rows import Rows
from consistency_lab.store.results import save_result

RACE = {"uniform": "control", "uniform + annealing": "annealed"}


@pytest.fixture
def claims(script):
    return script("_claims")


@pytest.fixture
def judged(script, claims, tmp_path):
    """The verdict on a claim by rows that a function writes into a folder."""

    def judge(name, write):
        (tmp_path / "digits").mkdir(exist_ok=True)
        write(tmp_path / "digits")
        parts = claims.CLAIMS[name].parts(script("_common").Source("digits", tmp_path))
        assert all(part.text and "nan" not in part.text for part in parts)
        return claims.verdict(parts)

    return judge


def test_every_mixture_of_signs_has_its_verdict(claims):
    signs = (True, False, None)
    mixtures = [set(each) for n in (1, 2, 3) for each in itertools.combinations(signs, n)]
    words = {frozenset(each): claims.verdict([claims.Part(sign, "") for sign in each]) for each in mixtures}
    assert words == claims.VERDICTS
    assert words[frozenset({True})] == "confirmed"
    assert words[frozenset({False})] == "contradicted"
    assert len(mixtures) == 7


def test_an_interval_is_beyond_a_value_only_with_both_ends(claims):
    assert claims.beyond((0.6, 0.51, 0.7), 0.5) is True
    assert claims.beyond((0.4, 0.3, 0.49), 0.5) is False
    assert claims.beyond((0.6, 0.49, 0.7), 0.5) is None
    assert claims.beyond((0.6, np.nan, np.nan), 0.5) is None


def probe(name, families=("unet", "mlp"), **numbers):
    """Writes one probe's rows: the same numbers, +- 0.02, for every family."""

    def write(folder):
        rows = Rows(folder / "why.jsonl")
        for family in families:
            values = {f"{key}{end}": value + by for key, value in numbers.items() for end, by in ENDS}
            own = {"probe": name, "family": family, "models": [family], "part": None}
            rows.row({"row": "why", **own, "count": 64}, lambda v=values: v)

    return write


ENDS = (("", 0.0), ("_low", -0.02), ("_high", 0.02))


def difficulty(**shares):
    def write(folder):
        definitions = [
            {"definition": name.replace("_", " ") if name != "half_time" else "half-time", "uniform_below": 0.5}
            | {f"share_below{end}": share + by for end, by in ENDS}
            for name, share in shares.items()
        ]
        spec = {"row": "why", "probe": "difficulty", "family": "unet", "models": ["unet"], "part": None}
        Rows(folder / "why.jsonl").row(spec, lambda: {"definitions": definitions})

    return write


@pytest.mark.parametrize(
    ("name", "write", "verdict"),
    [
        ("basin", probe("between", relative_barrier=3.0), "contradicted"),
        ("basin", probe("between", relative_barrier=0.05), "confirmed"),
        ("basin", probe("between", relative_barrier=0.5), "undecided"),
        ("structure", probe("structure", half_known_t=0.7), "confirmed"),
        ("structure", probe("structure", half_known_t=0.3), "contradicted"),
        ("structure", probe("structure", half_known_t=0.51), "undecided"),
        ("easy", difficulty(eps_error=0.9, x0_error=0.1, v_error=0.2), "depends"),
        ("easy", difficulty(eps_error=0.9, x0_error=0.8, v_error=0.7), "confirmed"),
        ("easy", difficulty(eps_error=0.2, x0_error=0.1, v_error=0.49), "partly contradicted"),
        ("slow", difficulty(half_time=0.6, eps_error=0.1), "confirmed"),
        ("slow", difficulty(half_time=0.4, eps_error=0.9), "contradicted"),
    ],
)
def test_claims_on_probes(judged, name, write, verdict):
    assert judged(name, write) == verdict


def test_smoothness_is_that_of_hulls(judged, builders):
    def smooth(folder):
        builders.likeness(folder, poor=())
        builders.why(folder)

    assert judged("smooth", smooth) == "confirmed"

    def rough(folder):
        """The diffusion models' rows become the GAN's, and the other way round."""
        builders.why(folder)
        path = folder / "why.jsonl"
        text = path.read_text()
        path.unlink()
        rows = Rows(path)
        for line in map(json.loads, text.splitlines()):
            spec = line["spec"]
            if spec["family"] in ("unet", "gan"):
                other = {"unet": "gan", "gan": "unet"}[spec["family"]]
                if spec["part"] != "discriminator":
                    rows.row({**spec, "family": other, "part": None}, lambda v=line["values"]: v)

    assert judged("smooth", rough) in ("contradicted", "partly contradicted")


def test_a_gan_of_poor_images_is_no_evidence_of_smoothness(judged, builders):
    def write(folder):
        builders.likeness(folder, poor=("gan",))
        builders.why(folder)

    with pytest.raises(MissingRows, match="nothing to be judged"):
        judged("smooth", write)


def test_likeness_of_families(judged, builders):
    assert judged("alike", lambda folder: builders.likeness(folder, contrast={"vae": 0.1})) == "confirmed"


def test_likeness_that_others_reach(judged, builders):
    assert judged("alike", lambda folder: builders.likeness(folder, contrast={"vae": 0.99})) == "contradicted"


@pytest.mark.parametrize(("others", "verdict"), [(0.1, "confirmed"), (0.95, "contradicted"), (0.88, "undecided")])
def test_where_images_are_too_poor_to_be_evidence_the_models_that_ship_are(judged, builders, others, verdict):
    """The GAN of the made-up rows is unfit; alone it decides nothing, whatever it scores. Nor do the VAEs that ship, alike as they are."""
    with pytest.raises(MissingRows, match="zoo"):
        judged("alike", lambda folder: builders.likeness(folder, contrast={"gan": 0.99}))
    assert judged("alike", lambda folder: builders.shipped(folder, others=others)) == verdict


@pytest.mark.parametrize(("p", "verdict"), [(0.01, "contradicted"), (0.4, "undecided")])
def test_architectures_are_told_apart_by_the_permutation(judged, builders, p, verdict):
    assert judged("architecture", lambda folder: builders.likeness(folder, p=p)) == verdict


@pytest.mark.parametrize(
    ("x0", "flow", "mean", "stable"),
    [
        (0.2, 0.97, "confirmed", "depends"),
        (0.8, 0.9, "contradicted", "contradicted"),
        (0.45, 0.9, "undecided", "partly contradicted"),
    ],
)
def test_ways_of_predicting(judged, builders, x0, flow, mean, stable):
    ways = {"eps": 0.9, "x0": x0, "v": 0.85, "edm": 0.9, "flow": flow}
    assert judged("mean", lambda folder: builders.likeness(folder, ways, "parametrisation", contrast={})) == mean
    assert judged("flow", lambda folder: None) == stable


def test_flow_matching_alone_agrees(judged, builders):
    ways = {"eps": 0.3, "x0": 0.2, "v": 0.1, "edm": 0.3, "flow": 0.9}
    assert judged("flow", lambda folder: builders.likeness(folder, ways, "parametrisation", contrast={})) == "confirmed"


def near_gaussian(builders, kind, shares):
    """Writes families whose scores with the Gaussian denoiser are given, +- 0.02, by step; with two others they are 0.5 and 0.6."""

    def write(folder):
        rows = Rows(folder / f"{'origins' if kind == 'family' else kind}.jsonl")
        for step, share in shares.items():
            values = builders.family_values(0.9) | builders.bounds("to_gaussian", share)
            values |= builders.bounds("to_local(window=3)", 0.5) | builders.bounds("to_optimal", 0.6)
            spec = {"row": kind, "family": "unet", "models": builders.models("unet"), **builders.RULER}
            rows.row(spec if step is None else {**spec, "step": step}, lambda v=values: v)

    return write


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.8, "confirmed"), (0.3, "contradicted"), (0.61, "undecided"), (0.55, "contradicted")]
)
def test_nearness_to_the_linear_denoiser(judged, builders, share, verdict):
    assert judged("linear", near_gaussian(builders, "family", {None: share})) == verdict


@pytest.mark.parametrize(("both", "verdict"), [(0.8, "confirmed"), (0.1, "contradicted"), (0.5, "undecided")])
def test_agreement_under_a_stochastic_sampler(judged, builders, both, verdict):
    assert judged("stochastic", lambda folder: builders.sampling(folder, (0.9, both, 0.3, 0.2))) == verdict


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({25: 0.1, 200: 0.9, 1500: 0.8}, "confirmed"),
        ({25: 0.1, 200: 0.81, 1500: 0.8}, "undecided"),
        ({25: 0.1, 200: 0.8}, "undecided"),  # a longer run may leave it
    ],
)
def test_the_linear_denoiser_is_learnt_first_where_models_leave_it_again(judged, builders, shares, verdict):
    assert judged("first", near_gaussian(builders, "emergence", shares)) == verdict


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [((0.2, 0.55, 0.9), "confirmed"), ((0.2, 0.7, 0.9), "undecided"), ((0.5, 0.7, 0.99), "contradicted")],
)
def test_sets_that_share_no_image_against_theory(judged, builders, predicted, verdict):
    """Models of such sets score 0.2, 0.55 and 0.9; those of one set 0.95 at every size."""
    assert judged("theory", lambda folder: builders.sizes(folder, predicted=predicted)) == verdict
    assert judged("regimes", lambda folder: None) == "undecided"
    assert judged("disjoint", lambda folder: None) == "confirmed"


@pytest.mark.parametrize(
    ("within", "copied", "verdict"),
    [
        ((0.9, 0.7, 0.9), (0.8, 0.3, 0.0), "confirmed"),
        ((0.9, 0.95, 0.9), (0.8, 0.3, 0.0), "contradicted"),
        ((0.9, 0.7, 0.71), (0.8, 0.3, 0.0), "undecided"),
        ((0.9, 0.95, 0.9), (0.4, 0.3, 0.0), "undecided"),  # nothing was memorised
        ((0.9, 0.7, 0.9), (0.8, 0.3, 0.2), "undecided"),  # some still is
    ],
)
def test_models_of_one_set_over_its_size(judged, builders, within, copied, verdict):
    def write(folder):
        rows = Rows(folder / "sizes.jsonl")
        for size, score, share in zip((8, 100, 900), within, copied, strict=True):
            values = (
                builders.bounds("within", score) | builders.bounds("between", 0.5) | builders.bounds("copies", share)
            )
            own = {"row": "size", "size": size, "count": 64, "settings": {"network": "mlp"}, "data": "others"}
            rows.row(own, lambda v=values: v)

    assert judged("regimes", write) == verdict
    assert judged("disjoint", lambda folder: None) == "undecided"
    with pytest.raises(MissingRows, match="prediction"):  # these rows are of other images than the preset's
        judged("theory", lambda folder: None)


def raced(builders, names, last=60):
    return lambda folder: save_result(builders.race(names, last), folder / "race-standard.nc")


def test_the_papers_recipe_is_judged_by_both_controls(judged, builders):
    """Each contestant of the made-up race is twice as fast as the one before."""
    fast = {**RACE, "CLTS": "curriculum", "paper: CLTS + MDLRC": "paper"}
    assert judged("faster", raced(builders, fast)) == "confirmed"


def test_a_slow_recipe_is_contradicted(judged, builders):
    slow = {"paper: CLTS + MDLRC": "paper", "uniform": "control", "uniform + annealing": "annealed"}
    assert judged("faster", raced(builders, slow)) == "contradicted"


@pytest.mark.parametrize("first", ["CLTS + annealing", "CLTS + annealing, at its end"])
def test_a_curriculum_against_its_static_twin(judged, builders, first):
    second = {"CLTS + annealing": "CLTS + annealing, at its end"}.get(first, "CLTS + annealing")
    names = {**RACE, first: "curriculum", second: "curriculum"}
    assert judged("curriculum", raced(builders, names)) == (
        "contradicted" if first == "CLTS + annealing" else "confirmed"
    )


@pytest.mark.parametrize("first", ["uniform + MDLRC", "uniform + decay to .1"])
def test_momentum_decay_against_the_same_decay_of_the_rate(judged, builders, first):
    second = {"uniform + MDLRC": "uniform + decay to .1"}.get(first, "uniform + MDLRC")
    names = {**RACE, first: "momentum", second: "momentum"}
    assert judged("momentum", raced(builders, names)) == ("contradicted" if first == "uniform + MDLRC" else "confirmed")


def test_a_seed_that_never_arrived_decides_nothing_about_momentum(judged, claims, script, builders, tmp_path):
    made = builders.race({**RACE, "uniform + decay to .1": "momentum", "uniform + MDLRC": "momentum"})
    made["censored"] = made["censored"].astype(bool)
    made["censored"].loc[{"contestant": "uniform + MDLRC", "seed": 1, "target": 0.9}] = True

    def write(folder):
        save_result(made, folder / "race-standard.nc")

    assert judged("momentum", write) == "undecided"
    (part,) = claims.CLAIMS["momentum"].parts(script("_common").Source("digits", tmp_path))
    assert part.text == "it never arrived in 1 of 3 seeds, its control in 0"


@pytest.mark.parametrize(
    ("order", "verdict"),
    [((0.1, 0.5, 0.3), "confirmed"), ((0.1, 0.3, 0.5), "contradicted"), ((0.3, 0.1, 0.5), "contradicted")],
)
def test_the_center_of_the_curriculum(judged, builders, order, verdict):
    """Each is twice as fast as the one before it; one that is better than 0.3 is enough."""
    names = {"uniform": "control", **{f"CLTS, center {each:g}": "curriculum" for each in order}}

    def write(folder):
        save_result(builders.race(names), folder / "race-centers.nc")

    assert judged("center", write) == verdict


def test_a_set_without_rows_is_not_judged(script, claims, tmp_path):
    for claim in claims.CLAIMS.values():
        with pytest.raises(MissingRows):
            claim.parts(script("_common").Source("digits", tmp_path))
