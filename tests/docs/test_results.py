"""The page of results says what the committed rows say: its tables to the last digit, its quoted sentences to the letter."""

import json
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from consistency_lab.intervals import interval_of
from consistency_lab.paper import rows as kept
from consistency_lab.paper.plots import frames
from consistency_lab.paper.race.crossing import speedup
from consistency_lab.paper.race.table import crossings, race_table
from consistency_lab.store.results import load_result
from consistency_lab.store.spec import NUMERICS_VERSION, content_hash

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
SETS = ("digits", "fashion")
FOREIGN = {"digits": "fashion", "fashion": "digits"}
RACED = {
    "uniform, constant rate": "uniform",
    "uniform + annealing": "uniform + annealing",
    "uniform + linear decay to .1": "uniform + decay to .1",
    "uniform + MDLRC (momentum decay, compensated)": "uniform + MDLRC",
    "uniform + beta decay alone": "uniform + beta decay only",
    "uniform + Demon-Adam": "uniform + Demon-Adam",
    "CLTS + annealing": "CLTS + annealing",
    "its density at the end, all along": "CLTS + annealing{length}, at its end",
    "its average density, all along": "CLTS + annealing{length}, averaged",
    "the paper: CLTS + MDLRC": "paper: CLTS + MDLRC",
    "EDM log-normal + annealing": "EDM log-normal + annealing",
    "logit-normal + annealing": "logit-normal + annealing",
    "min-SNR + annealing": "min-SNR + annealing",
    "P2 + annealing": "P2 + annealing",
    "SpeeD + annealing": "SpeeD + annealing",
    "loss second moment, as published, + annealing": "loss second moment + annealing",
    "the same in 50 cells, floor .1 (ours)": "loss second moment, 50 cells + annealing",
    "recipe: followed density": "recipe, followed density",
    "the same at a constant rate": "recipe, followed density, constant rate",
    "the same with the measured momentum": "recipe, followed density, measured momentum",
    "the same at exponent 1": "recipe, followed density, exponent 1",
    "recipe: fixed density": "recipe, fixed density",
    "recipe: other objective, exponent 1": "recipe, other objective, exponent 1",
    "recipe: other objective, exponent 1/2": "recipe, other objective, exponent 0.5",
    "the other set's recipe, followed": "recipe from {foreign}-followed",
    "the other set's recipe, fixed": "recipe from {foreign}-fixed",
    "recipe of shuffled findings, fixed": "shuffled findings",
}
FAMILIES = {
    "U-Nets, other seeds": "unet", "transformers (DiT)": "dit", "MLPs": "mlp", "GANs": "gan",
    "GANs, U-Net fed image-shaped noise": "gan-image", "VAEs": "vae",
    "U-Net with DiT": ("unet", "dit"), "U-Net with MLP": ("unet", "mlp"), "DiT with MLP": ("dit", "mlp"),
}  # fmt: skip
WAYS = {
    "eps / eps": "eps", "x0 / x0 (mean prediction)": "x0", "x0 / eps": "x0/eps", "eps / x0 (outer skip)": "eps/x0", "v / v": "v",
    "EDM preconditioning and weight": "edm", "flow matching": "flow",
}  # fmt: skip
STREAMS = {"all three streams": "all three"} | {
    f"{x} alone": x for x in ("initialisation", "data order", "training noise")
}
LEARNT = {
    "uniform": "uniform", "uniform, annealed": "uniform, annealed", "recipe": "recipe", "recipe with uniform": ("uniform", "recipe"),
    "uniform, annealed with uniform": ("uniform", "uniform, annealed"), "uniform, annealed with recipe": ("uniform, annealed", "recipe"),
}  # fmt: skip
PROBED = {
    "U-Net": "unet", "DiT": "dit", "MLP": "mlp", "VAE": "vae",
    "GAN, generator": "gan, generator", "GAN, discriminator": "gan, discriminator",
}  # fmt: skip


def tables():
    """Head -> rows (first cell -> the others) of every table of the page; marks and emphasis are left out."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        clean = [[re.sub(r" (unfit|‡)|\*", "", cell) for cell in line] for line in lines]
        found[" | ".join(clean[0])] = {line[0]: line[1:] for line in clean[2:]}
    return found


def table(head):
    (rows,) = [rows for name, rows in tables().items() if name.startswith(head)]
    return rows


def made_by(path):
    """The numerics version that made a file of rows, by the key of its first."""
    row = json.loads(path.open(encoding="utf-8").readline())
    named = {"spec": row["spec"], **({"files": row["files"]} if "files" in row else {})}
    return next(
        v for v in range(NUMERICS_VERSION, 0, -1) if content_hash({**named, "numerics_version": v}) == row["key"]
    )


@pytest.fixture(autouse=True)
def of_their_version(monkeypatch):
    """The committed rows are read as those who made them did: the page speaks of them until they are made again."""
    monkeypatch.setattr(kept, "NUMERICS_VERSION", made_by(FIGURES / "digits" / "likeness.jsonl"))


@cache
def read(preset, study):
    rows = frames.current_rows(FIGURES / preset / f"{study}.jsonl")
    own, both = frames.families(rows), frames.crosses(rows)
    values = {row["family"]: row for row in own.to_dict("records")}
    return values | {(row["first"], row["second"]): row for row in both.to_dict("records")}


@cache
def raced(preset):
    return race_table(load_result(FIGURES / preset / "race-standard.nc"))


def ends(value, low, high, digits=3):
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def score(row, metric):
    return ends(*interval_of(row, f"{metric}_score"))


def distances(row):
    return f"{row['mse_median_distance']:.3f}; {row['mse_distance']:.3f}"


def frechet(row):
    value, low, high = interval_of(row, "frechet", float("nan"))
    # Below 0 no distance lies.
    return "" if value != value else ends(value, low, high, 1) if low > 0 else f"{value:.1f} [0, {high:.1f}]"


def test_the_families_and_their_quality():
    said = table("models | digits: score | Frechet")
    for name, key in FAMILIES.items():
        rows = [read(preset, "likeness")[key] for preset in SETS]
        assert said[name] == [text for row in rows for text in (score(row, "mse"), frechet(row))], name
    floors = [
        [read(preset, "likeness")["unet"][f"frechet_{key}"] for key in ("floor", "gaussian", "memoriser")]
        for preset in SETS
    ]
    texts = ["; ".join(f"{x:.1f}" for x in each) for each in floors]
    assert said["real images; Gaussian denoiser's; copies"] == ["", texts[0], "", texts[1]]


def test_the_second_metric_and_the_median():
    said = table("models | digits: by cosine")
    for name, cells in said.items():
        rows = [read(preset, "likeness")[FAMILIES[name]] for preset in SETS]
        assert cells == [text for row in rows for text in (score(row, "cosine"), distances(row))], name
    for head, names, study in (
        ("what varies", STREAMS, "streams"),
        ("parametrisation", WAYS, "parametrisation"),
        ("models | score", LEARNT, "race"),
    ):
        said = table(head)
        assert set(said) == set(names)
        for name, cells in said.items():
            row = read("digits", study)[names[name]]
            expected = [score(row, "mse"), score(row, "cosine"), distances(row), frechet(row)]
            assert cells == expected[: len(cells)], name


def test_the_pairs_of_diffusion_models_and_of_others():
    for preset, lowest, highest in (("digits", "0.784", "0.144"), ("fashion", "0.203", "0.097")):
        rows = frames.current_rows(FIGURES / preset / "likeness.jsonl")
        diffusion, others = [], []
        for values in (row["values"] for row in rows if row["spec"]["row"] == "pairs"):
            kinds = [name.rpartition("-")[0] for name in values["names"]]
            for i, j, value in zip(values["first"], values["second"], values["score"], strict=True):
                trained = [kinds[k] in ("unet", "dit", "mlp") for k in (i, j)]
                if all(trained):
                    diffusion.append(value)
                elif not any(trained) and kinds[i] == kinds[j]:
                    others.append(value)
        assert (len(diffusion), len(others)) == (66, 18)
        assert (f"{min(diffusion):.3f}", f"{max(others):.3f}") == (lowest, highest)
        assert lowest in PAGE
        assert highest in PAGE


def test_the_sizes():
    said = table("images a set")
    rows = [row for row in frames.current_rows(FIGURES / "digits" / "sizes.jsonl") if row["spec"]["row"] == "size"]
    for row in rows:
        values = row["values"]
        cells = [ends(*interval_of(values, key)) for key in ("between", "copies", "within")]
        if not values["copies_high"]:
            cells[1] = "none of 256"
        assert said[str(row["spec"]["size"])] == cells


def test_the_smoothness():
    (said,) = [rows for head, rows in tables().items() if "digits: roughness" in head]
    found = {preset: frames.probes(frames.current_rows(FIGURES / preset / "why.jsonl"), "line") for preset in SETS}
    for name, probed in PROBED.items():
        cells = []
        for probes in found.values():
            row = probes.set_index("name").loc[probed]
            for key, digits in (
                ("roughness", 3),
                ("relative_curvature", 1 if "GAN" in name else 0),
                ("predictiveness", 2),
            ):
                cells.append(ends(*interval_of(row, key), digits).replace("[−0.0,", "[0.0,"))
        assert said[name] == cells, name


def test_the_race():
    said = table("contestant | digits: steps")
    assert set(said) == set(RACED)
    for name, cells in said.items():
        expected = []
        for preset in SETS:
            length = ", 750 steps" if preset == "digits" else ""
            entry = RACED[name].format(length=length, foreign=FOREIGN[preset])
            rows = raced(preset)
            own = rows[(rows["entry"] == entry) & rows["fastest"]].set_index("against")
            first = own.loc["uniform, constant rate"]
            expected.append(f"{'> ' if first['censored'] else ''}{first['crossing']:.0f}")
            for against in ("uniform, constant rate", "fastest uniform with annealing"):
                row = own.loc[against]
                bound = f"≤ {row['speedup']:.2f}"
                expected.append(bound if row["bound"] == "at most" else ends(*interval_of(row, "speedup"), 2))
        assert cells == expected, name


def spread(values, digits=2, by=1.0):
    low, high = (f"{by * each:.{digits}f}" for each in (min(values), max(values)))
    return f"{low} to {high}"


def probe(preset, name):
    return frames.probes(frames.current_rows(FIGURES / preset / "why.jsonl"), name)


def test_numbers_in_sentences_about_probes():
    found = [probe(preset, "difficulty") for preset in SETS]
    definitions = [row for each in found for values in each["definitions"] for row in values]
    shares = {
        name: [d["share_below"] for d in definitions if d["definition"] == name]
        for name in ("eps error", "gradient noise", "half-time")
    }
    assert f"{spread(shares['eps error'], 0, 100)} % of the error" in PAGE
    assert f"{spread(shares['gradient noise'], 0, 100)} % of the noise" in PAGE
    assert f"{spread(shares['half-time'], 0, 100)} % of the sum of the half-times" in PAGE
    peaks = [d for d in definitions if d["definition"] == "gradient norm"]
    assert {(round(d["peak_t_low"], 2), round(d["peak_t_high"], 2)) for d in peaks} == {(0.03, 0.98)}
    assert all(round(d["peak_t"], 2) == 0.98 for d in definitions if d["definition"] in ("x0 error", "v error"))
    ranks = [r for each in found for values in each["rank_correlations"] for r in values]
    assert [f"{r['rho']:.2f}" for r in ranks if (r["first"], r["second"]) == ("eps error", "x0 error")] == ["-1.00"] * 6
    between = {preset: probe(preset, "between").set_index("name") for preset in SETS}
    rises = [table.loc[name, "relative_barrier"] for table in between.values() for name in ("unet", "dit", "mlp")]
    assert f"the loss rises by {spread(rises, 1)} times its value at the ends" in PAGE
    vaes = [table.loc["vae", "relative_barrier"] for table in between.values()]
    assert f"VAEs by {vaes[0]:.1f} and {vaes[1]:.0f}" in PAGE
    joined = {preset: probe(preset, "connectivity").set_index("name") for preset in SETS}
    left = [table["barrier_trained curve"] / table["barrier_straight line"] for table in joined.values()]
    assert f"{spread([x for each in left for x in each], 0, 100)} % is left" in PAGE
    aligned = [
        1 - table.loc["mlp", "barrier_line after alignment"] / table.loc["mlp", "barrier_straight line"]
        for table in joined.values()
    ]
    assert "{:.0f} % of the barrier on digits and {:.0f} % on Fashion-MNIST".format(*(100 * x for x in aligned)) in PAGE
    levels = [probe(preset, "structure") for preset in SETS]
    for key, words in (
        ("half_known_t", "at t = {} (Fashion-MNIST {};"),
        ("swap_t", "at t = {} ({});"),
        ("handoff_t", "it does so at {} ({}):"),
    ):
        assert words.format(*(spread(table[key]) for table in levels)) in PAGE.replace("\n", " ")


def test_numbers_in_sentences_about_what_models_share():
    own = read("digits", "origins")
    ends_of = [ends(*interval_of(own[name], "to_gaussian"), 2) for name in ("unet", "dit", "mlp")]
    text = PAGE.replace("\n", " ")
    assert f"scores {ends_of[0]} with the U-Nets, {ends_of[1]} with the DiTs and {ends_of[2]} with the MLPs" in text
    for key, words in (
        ("to_local(window=3)", "the local one (window 3) "),
        ("to_optimal", "the memorising one "),
        ("residual_after_gaussian", "still agrees: "),
    ):
        first, second, third = (f"{own[name][key]:.2f}" for name in ("unet", "dit", "mlp"))
        assert f"{words}{first}, {second} and {third}" in text
    rows = [
        row["values"] | row["spec"]
        for row in frames.current_rows(FIGURES / "digits" / "emergence.jsonl")
        if row["spec"]["row"] == "emergence"
    ]
    first, later = ([row for row in rows if (row["step"] == 25) == early] for early in (True, False))
    assert {spread([row[f"{m}_score"] for row in first]) for m in ("mse", "cosine")} == {"0.97 to 0.99"}
    both = [spread([row[f"{m}_score"] for row in later]) for m in ("mse", "cosine")]
    assert f"From step 50 on it is {both[0]} by MSE and {both[1]} by cosine" in text
    pairs = [row for name, row in read("digits", "parametrisation").items() if isinstance(name, tuple)]
    across = [spread([row[f"{m}_score"] for row in pairs]) for m in ("mse", "cosine")]
    assert f"the score is {across[0]} by MSE and {across[1]} by cosine" in text


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "analyses"))
    yield import_module
    sys.path.remove(str(ROOT / "analyses"))
    for path in (ROOT / "analyses").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def curves(script):
    """What the script of the speed-ups makes of the committed races, by set."""
    return {preset: script("speedup_curve").produce(script("_common").Source(preset, FIGURES)) for preset in SETS}


def test_numbers_in_sentences_about_the_race():
    text = PAGE.replace("\n", " ")
    races = {preset: load_result(FIGURES / preset / "race-standard.nc") for preset in SETS}

    def against(preset, one, other):
        length = {"digits": ", 750 steps", "fashion": ""}[preset]
        at = float(races[preset]["target"][-1])
        first, second = (crossings(races[preset], name.replace("@", length), at) for name in (one, other))
        found = speedup(second, first)
        return ends(found.estimate, found.low, found.high, 2)

    leading = "recipe, followed density@"
    momentum = [against(p, "recipe, followed density, measured momentum@", leading) for p in SETS]
    assert f"{momentum[0]} and {momentum[1]} times as fast. The paper's whole" in text
    exponent = [against(p, "recipe, followed density, exponent 1@", leading) for p in SETS]
    assert f"is {exponent[0]} times as fast on digits and not told from it on Fashion-MNIST, {exponent[1]}." in text
    twin = [against(p, "CLTS + annealing@", "CLTS + annealing@, at its end") for p in SETS]
    assert f"CLTS is {twin[0]} times as fast as its own density at the end held fixed on digits, {twin[1]} on" in text
    cells = [
        against(p, leading, f"loss second moment, 50 cells + annealing{', 450 steps' if p == 'digits' else ''}")
        for p in SETS
    ]
    assert f"the recipe is {cells[0]} and {cells[1]} times as fast" in text
    assert f"is {against('digits', leading, 'loss second moment + annealing@')} times faster on digits" in text
    assert f"{against('fashion', 'uniform + MDLRC', 'uniform + decay to .1')} on Fashion-MNIST. The momentum" in text
    own = [raced(p)[(raced(p)["entry"] == "recipe, followed density") & raced(p)["fastest"]].iloc[0] for p in SETS]
    steps, seconds = (
        [ends(*interval_of(row, f"{kind}speedup"), 2) for row in own] for kind in ("pilot_", "pilot_seconds_")
    )
    assert f"the recipe is {steps[0]} times sooner on digits and {steps[1]} on Fashion-MNIST" in text
    assert f"slower on both ({seconds[0]}, {seconds[1]})" in text
    centers = race_table(load_result(FIGURES / "digits" / "race-centers.nc")).set_index("contestant")
    told = [f"{c}: {ends(*interval_of(centers.loc[f'CLTS, center {c}'], 'speedup'), 2)}" for c in (0.1, 0.3)]
    assert "; ".join(told) + "; 0.5 and above: later" in text


def test_the_speedup_over_targets(curves):
    said = table("target: the loss that a uniform run")
    names = {"digits": "digits", "Fashion-MNIST": "fashion"}
    kinds = {"uniform Adam": "uniform, constant rate", "the fastest annealed control": "fastest uniform with annealing"}
    for name, cells in said.items():
        preset, against = name.split(": than ")
        rows = curves[names[preset]].figures[""][1]
        own = rows[
            rows["contestant"].str.startswith("recipe") & (rows["against"] == kinds[against]) & rows["qualified"]
        ]
        assert own["fraction"].tolist() == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
        texts = [
            f"≥ {row['speedup']:.2f}" if row["bound"] == "at least" else ends(*interval_of(row, "speedup"), 2)
            for row in own.to_dict("records")
        ]
        assert cells == texts, name
    assert len(said) == 4


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("streams", "digits"),
        ("parametrisation", "digits"),
        ("what_is_learnt", "digits"),
        ("difficulty_definitions", "digits"),
        ("difficulty_definitions", "fashion"),
        ("speedup_curve", "digits"),
        ("speedup_curve", "fashion"),
    ],
)
def test_quoted_sentences_are_what_the_scripts_say(script, curves, name, preset):
    drawn = (
        curves[preset] if name == "speedup_curve" else script(name).produce(script("_common").Source(preset, FIGURES))
    )
    assert f"\n> {drawn.sentence}\n" in PAGE
    assert len(re.findall(r"^> ", PAGE, flags=re.MULTILINE)) == 7
