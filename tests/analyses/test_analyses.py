"""Each script on made-up rows: it draws its figure, writes its data, and says what the numbers say, whichever way they point."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
HELPERS = {"_claims", "_common", "_paper", "_stored", "make_all", "make_findings", "make_results", "make_zoo"}
SCRIPTS = sorted(path.stem for path in (ROOT / "analyses").glob("*.py") if path.stem not in HELPERS)


def source(script, folder, preset="digits", **options):
    return script("_common").Source(preset, folder, **options)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_leaves_figures_with_their_data_and_one_sentence_of_numbers(script, made, tmp_path, capsys, name):
    module = script(name)
    script("_common").main(module.produce, module.__file__, ["--rows", str(made), "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.search(r"\d+\.\d+|\[\d", said)
    assert "nan" not in said
    pictures = list(tmp_path.glob("*.png"))
    stem = f"figure-{name.replace('_', '-')}"
    assert stem in {path.stem for path in pictures}
    for path in pictures:
        assert path.stem.startswith(stem)
        assert path.with_suffix(".pdf").stat().st_size > 1000
        assert len(pd.read_csv(path.with_suffix(".csv")))


def test_every_script_is_among_those_that_make_figures_runs(script):
    assert sorted(script("make_all").SCRIPTS) == SCRIPTS


@pytest.mark.parametrize(
    ("name", "preset", "words"),
    [
        ("consistency_table", "digits", "`consistency-lab study likeness --preset digits` makes them"),
        ("streams", "paper", "cannot make them yet: unknown preset of this study 'paper'. Known: digits, fashion."),
    ],
)
def test_missing_rows_end_in_one_sentence_that_names_their_command(script, tmp_path, capsys, name, preset, words):
    module = script(name)
    with pytest.raises(SystemExit) as stopped:
        script("_common").main(module.produce, module.__file__, ["--rows", str(tmp_path), "--preset", preset])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_all_figures_are_made_and_those_without_rows_are_skipped_with_a_line(script, builders, tmp_path, capsys):
    builders.likeness(tmp_path / "rows" / "digits")
    script("make_all").main(["--rows", str(tmp_path / "rows"), "--out", str(tmp_path / "out")])
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name for name, line in lines.items() if not line.startswith("skipped")} == {
        "consistency_table",
        "controls",
        "similarity_along_t",
    }
    assert set(lines) == set(script("make_all").SCRIPTS)
    assert "race --preset digits --contestants centers" in lines["center_ablation"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("vae", "words"),
    [
        (0.6, "every diffusion row lies above every GAN and VAE row, and no intervals overlap"),
        (0.85, "every diffusion row lies above every GAN and VAE row, but some intervals overlap"),
        (0.95, "the claim fails: 1 of 2 GAN and VAE rows reach the lowest diffusion row"),
    ],
)
def test_the_claim_of_the_paper_follows_the_numbers(script, builders, tmp_path, vae, words):
    builders.likeness(tmp_path / "digits", contrast={"gan": 0.2, "vae": vae})
    said = script("consistency_table").produce(source(script, tmp_path)).sentence
    assert words in said
    assert "unet | mlp 0.86 [0.84, 0.88]" in said  # the mean of their scores less 0.05
    assert f"vae {vae} " in said
    assert "without gan, whose images are too poor" in said


def test_the_claim_is_open_without_the_rows_that_it_is_about(script, builders, tmp_path):
    builders.likeness(tmp_path / "digits", contrast={})
    said = script("consistency_table").produce(source(script, tmp_path)).sentence
    assert "open: no GAN and VAE row is finished" in said


def test_kinds_come_from_the_preset_when_only_lines_are_finished(script, builders, tmp_path):
    rows = builders.Rows(tmp_path / "digits" / "why.jsonl")
    for family, part, value in (("mlp", None, 1.0), ("gan", "generator", 3.0)):
        spec = {"row": "why", "probe": "line", "family": family, "models": [family], "part": part, "seed": 0}
        bent, rough = (
            builders.bounds(key, value, half) for key, half in (("relative_curvature", 0.1), ("roughness", 2.5))
        )
        rows.row(spec, lambda both=bent | rough: both)
    drawn = script("smoothness").produce(source(script, tmp_path))
    table = drawn.figures[""][1]
    assert dict(zip(table["name"], table["group"], strict=True)) == {"mlp": "diffusion", "gan, generator": "GAN"}
    assert "smoother in 1 of 2 comparisons" in drawn.sentence
    assert "relative curvature [0.9, 1.1] is lower than GAN [2.9, 3.1]" in drawn.sentence
    assert "roughness on ±0.5 [-1.5, 3.5] is not told from GAN [0.5, 5.5]" in drawn.sentence
    assert any(
        "older rows: on this span alone" in text.get_text() for text in drawn.figures[""][0].axes[0].get_yticklabels()
    )


def test_roughness_is_compared_on_every_span_that_rows_know(script, builders, tmp_path):
    rows = builders.Rows(tmp_path / "digits" / "why.jsonl")
    for family, part, short, whole in (("mlp", None, 0.1, 0.5), ("gan", "generator", 0.3, 0.4)):
        spec = {"row": "why", "probe": "line", "family": family, "models": [family], "part": part, "seed": 0}
        found = builders.bounds("roughness_on_0.05", short) | builders.bounds("roughness", whole)
        rows.row(spec, lambda both={**found, "roughness_span": 0.5}: both)
    said = script("smoothness").produce(source(script, tmp_path)).sentence
    assert "roughness on ±0.05 [0.08, 0.12] is lower than GAN" in said
    assert "roughness on ±0.5 [0.48, 0.52] is higher than GAN" in said


def test_the_sentence_of_the_streams_says_when_the_least_is_not_told_from_the_next(script, builders, tmp_path):
    for name, least in {"far": 0.8, "near": 0.93}.items():
        families = {"all three": 0.79, "initialisation": least, "data order": 0.95}
        builders.likeness(tmp_path / name / "digits", families, "streams", crosses=False, contrast={})
    said = [script("streams").produce(source(script, tmp_path / name)).sentence for name in ("far", "near")]
    assert ["not told from the next" in each for each in said] == [False, True]
    assert "overlaps that of all three" in said[0]
    assert "lies above that of all three" in said[1]


def test_speedups_are_those_of_the_race(script, made):
    said = script("race").produce(source(script, made)).sentence
    # Each made-up contestant is twice as fast as the one before.
    assert "recipe (against uniform, constant rate: 8 [8, 8] and fastest uniform with annealing: 4 [4, 4])" in said
    ablation = script("center_ablation").produce(source(script, made)).sentence
    assert "Of 2 centers, CLTS, center 0.5 is" in ablation
    assert "4 [4, 4] times as fast" in ablation


MANY = {f"{role} {i}": role for role in ("control", "annealed", "density", "recipe") for i in range(5)} | {
    "paper": "paper"
}


def test_a_race_draws_a_dozen_and_has_everybody_in_its_table(script, builders, tmp_path):
    (tmp_path / "digits").mkdir()
    raced = builders.race(MANY)
    builders.save_result(raced, tmp_path / "digits" / "race-standard.nc")
    drawn = script("race").produce(source(script, tmp_path))
    (ax,) = drawn.figures[""][0].axes
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert len(shown) == 12
    # Each is faster than the one before: the last of every role, then the fastest of all.
    assert {"control 4", "annealed 4", "density 4", "recipe 4", "paper"} <= set(shown)
    assert shown == sorted(shown, key=list(MANY).index)
    assert drawn.figures[""][0]._supxlabel.get_text().startswith("12 of 21: the fastest of every role")
    assert list(drawn.table["contestant"]) == list(MANY)
    assert "times sooner than uniform, constant rate: control 4" in drawn.table
    pages = [page for _, page in script("final_table").produce(source(script, tmp_path)).figures.values()]
    # 21 contestants and a heading for each of five roles; the four references with theirs do not fit on what is left.
    assert [len(page) + page["group"].nunique() for page in pages] == [26, 5]
    assert [name for page in pages for name in page["name"]][: len(MANY)] == list(MANY)


def test_a_group_that_is_longer_than_a_page_is_divided(script):
    ends = pd.DataFrame({"group": ["a"] + ["b"] * 9, "name": list("0123456789")})
    pages = script("final_table").pages(ends, most=5)
    assert [list(page["name"]) for page in pages] == [["0"], list("1234"), list("5678"), ["9"]]


def test_rows_of_an_older_version_are_drawn_on_request_and_said_to_be(script, builders, made, tmp_path, capsys):
    path = tmp_path / "digits" / "streams.jsonl"
    rows = builders.likeness(
        tmp_path / "digits", {"all three": 0.85, "data order": 0.95}, "streams", crosses=False, contrast={}
    )
    script("_common")  # keys of another version
    lines = [json.loads(line) for line in rows.path.read_text().splitlines()]
    path.write_text(
        "".join(
            json.dumps({k: v for k, v in {**line, "key": f"old {line['key']}"}.items() if k != "checksum"}) + "\n"
            for line in lines
        )
    )
    with pytest.raises(script("_common").UserError, match="older version"):
        source(script, tmp_path).rows("streams")
    old = source(script, tmp_path, older=True)
    assert len(old.rows("streams")) == len(lines)
    assert any("older version" in note for note in old.notes)
    now = source(script, made, older=True)
    now.rows("streams")
    assert not any("older version" in note for note in now.notes)


@pytest.mark.parametrize("width", ["3.25", "page"])
def test_figures_for_paper_are_as_wide_as_they_are_asked_to_be(script, made, tmp_path, width):
    module, inches = script("streams"), {"3.25": 3.25, "page": 6.75}[width]
    options = ["--style", "paper", "--width", width, "--palette", "Dark2"]
    script("_common").main(module.produce, module.__file__, ["--rows", str(made), "--out", str(tmp_path), *options])
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", (tmp_path / "figure-streams.pdf").read_bytes())
    assert float(box[1]) == 72 * inches


def test_a_palette_that_nobody_knows_ends_in_one_sentence(script, made, tmp_path, capsys):
    module = script("streams")
    with pytest.raises(SystemExit):
        script("_common").main(
            module.produce, module.__file__, ["--rows", str(made), "--out", str(tmp_path), "--palette", "Drak2"]
        )
    assert "unknown palette 'Drak2'. Did you mean 'Dark2'?" in capsys.readouterr().err


def test_the_speedup_is_said_at_every_target(script, made):
    drawn = script("speedup_curve").produce(source(script, made))
    # Losses are 1/step over the speed, over seeds 1, 1.1 and 1.2 times as much: the ratio is 8 at every target.
    table = drawn.figures[""][1]
    own = table[(table["contestant"] == "recipe") & (table["against"] == "uniform, constant rate")]
    assert own["fraction"].tolist() == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert own["qualified"].tolist() == [False] * 3 + [True] * 5
    assert "at 0.2, 0.3 and 0.4 a closed-form denoiser has that loss without training" in drawn.sentence
    assert set(table["contestant"]) == {"recipe", "paper: CLTS + MDLRC"}


def test_an_excess_of_held_out_images_in_old_rows_is_void(script, builders, tmp_path):
    one = {
        "unit": "u",
        "peak_t_low": 0.2,
        "peak_t_high": 0.9,
        "share_below": 0.5,
        "share_below_low": 0.4,
        "share_below_high": 0.6,
    }
    own = [
        {"definition": name, "peak_t": t, **one}
        for name, t in (("eps error", 0.3), ("x0 error", 0.4), ("over optimal", 0.99))
    ]
    pairs = [("eps error", "over optimal"), ("eps error", "x0 error"), ("x0 error", "over optimal")]
    ranks = [{"first": a, "second": b, "rho": 0.5, "low": 0.4, "high": 0.6, "times": 9} for a, b in pairs]
    values = {"definitions": own, "rank_correlations": ranks}
    said = {}
    for name, more in {"old": {}, "new": {"excess_over_optimal_on": "training"}}.items():
        rows = builders.Rows(tmp_path / name / "digits" / "why.jsonl")
        spec = {"row": "why", "probe": "difficulty", "family": "mlp", "models": ["mlp"], "part": None}
        rows.row(spec, lambda more=more: values | more)
        said[name] = script("difficulty_definitions").produce(source(script, tmp_path / name)).sentence
    assert "to t = 0.99 [0.20 to 0.90] (over optimal, u, mlp)" in said["new"]
    assert "of 3 pairs" in said["new"]
    assert "to t = 0.40 [0.20 to 0.90] (x0 error, u, mlp)" in said["old"]
    assert "of 1 pairs" in said["old"]
    assert said["old"].endswith("left out: over optimal (void: of held-out images).")


def test_distances_that_were_measured_once_are_a_forest(script, builders, tmp_path):
    (tmp_path / "digits").mkdir()
    raced = builders.race(builders.STANDARD)
    for name in ("frechet", "evaluation_loss", "evaluation_step"):
        raced[name][..., :-1] = np.nan
    builders.save_result(raced, tmp_path / "digits" / "race-standard.nc")
    ax = script("quality_vs_iterations").produce(source(script, tmp_path)).figures[""][0].axes[0]
    assert ax.get_yticklabels()[0].get_text() == "after 60 steps"
    assert [text.get_text() for text in ax.get_yticklabels()[1:]] == list(builders.STANDARD)


def test_a_distance_that_does_not_qualify_decides_nothing(script, made):
    assert "so it decides nothing" in script("quality_vs_iterations").produce(source(script, made)).sentence


def test_emergence_tells_what_is_agreed_on_from_how_much(script, made):
    said = script("emergence").produce(source(script, made)).sentence
    # With the Gaussian 0.1 less: 0.8 at the end, and 0.44 at step 200, the first above half of that.
    assert "unet scores 0.18 [0.16, 0.2] at step 25" in said
    assert "Gaussian denoiser 0.08 [0.06, 0.1] and 0.8 [0.78, 0.82], half of it by step 200" in said


def test_definitions_of_difficulty_are_counted(script, made):
    drawn = script("difficulty_definitions").produce(source(script, made))
    assert "of 9 pairs of definitions over 3 families, 3 order the times alike, 3 in opposite ways" in drawn.sentence
    assert set(drawn.figures) == {"", "agreement-unet", "agreement-dit", "agreement-mlp"}


def test_words_for_numbers(script):
    common = script("_common")
    assert common.said(0.5, float("nan"), 0.6) == "0.5 (no interval)"
    assert common.listed(["a", "b", "c"]) == "a, b and c"
    low, high = (pd.Series({"x": v, "x_low": v - 0.1, "x_high": v + 0.1}) for v in (0.0, 1.0))
    told = [common.relation(*pair, "x") for pair in ((low, high), (high, low), (low, low), (low, high * float("nan")))]
    assert told == ["lies below", "lies above", "overlaps", "cannot be told from"]


@pytest.mark.parametrize("name", ["consistency_table", "race", "what_is_learnt"])
def test_the_scale_of_the_paper_is_foretold_and_nothing_drawn(script, tmp_path, name):
    with pytest.raises(script("_common").UserError) as stopped:
        script(name).produce(source(script, tmp_path, "paper"))
    assert re.search(
        r"`consistency-lab (study|race) .*paper.*` makes them\. .* [1-9]\d* days of one GPU", str(stopped.value)
    )


def test_the_cost_of_a_network_is_what_its_layers_multiply(script):
    # mlp on 3x32x32: every matrix once forward, two operations a weight; biases and norms are not counted.
    network = script("_paper").build_network("mlp", (3, 32, 32))
    weights = sum(p.numel() for p in network.parameters() if p.ndim == 2)
    assert script("_paper").per_image("mlp") == pytest.approx(6 * weights, rel=0.02)


def test_where_networks_do_better_than_linear_theory_is_said_by_size(script, builders, tmp_path):
    builders.sizes(tmp_path / "digits", networks=("mlp", "unet"))
    drawn = script("theory").produce(source(script, tmp_path))
    said = drawn.sentence
    assert "unet across disjoint sets of 8 to 900 images score 0.2 [0.18, 0.22] to 0.9 [0.88, 0.92]" in said
    assert (
        "linear denoisers in theory 0.3 [0.29, 0.31] to 0.85 [0.84, 0.86]: above it at 900, below it at 8, not told from it at 100"
        in said
    )
    # Owed to the set: .95 less .2, .55 and .9, with what both intervals allow; in theory .7, .45 and .15.
    assert "is 0.75 [0.71, 0.79] to 0.05 [0.01, 0.09], in theory 0.7 [0.69, 0.71] to 0.15 [0.14, 0.16]" in said
    assert (
        "Gaussian denoiser 0.8 [0.78, 0.82], local denoiser 0.7 [0.68, 0.72] and optimal denoiser 0.6 [0.58, 0.62]"
        in said
    )
    table = drawn.figures[""][1]
    assert set(table["panel"]) == {"score", "set", "explained, mlp", "explained, unet"}
    assert {"mlp", "unet", "linear, in theory", "Gaussian denoiser"} <= set(table["name"])
    # Models of one set and copies stand beside them in a figure of their own, of every network too.
    swept = script("memorisation_sweep").produce(source(script, tmp_path))
    shown = {panel: set(own["name"]) for panel, own in swept.figures[""][1].groupby("panel")}
    assert shown == {panel: {"mlp", "unet"} for panel in ("between", "within", "copies")}
    assert (
        "unets of disjoint sets score 0.2 [0.18, 0.22], which lies below those of one set (0.95 [0.93, 0.97])"
        in swept.sentence
    )


def test_rows_of_before_the_prediction_get_it_from_the_images_that_they_are_of(script, builders, tmp_path):
    import consistency_lab as cl

    digits = cl.load_images("digits")
    builders.sizes(tmp_path / "digits", predicted=(), explained=(), data=digits.fingerprint)
    table = script("theory").produce(source(script, tmp_path)).figures[""][1]
    theory = table[(table["panel"] == "score") & (table["name"] == "linear, in theory")]
    assert theory["size"].tolist() == [8, 100, 900]
    expected = cl.predict_consistency(digits, [8, 100, 900], times=[0.0], count=0)["score"].sel(
        states="own trajectories"
    )
    np.testing.assert_allclose(theory["value"], expected.isel(t=0))
    assert set(table["panel"]) == {"score", "set"}
    builders.sizes(tmp_path / "others" / "digits", predicted=(), explained=(), data="of others")
    with pytest.raises(script("_common").frames.MissingRows, match="are of other images"):
        script("theory").produce(source(script, tmp_path / "others"))


def test_a_race_without_a_pilot_is_drawn_beside_the_standard_one(script, builders, tmp_path):
    """Each contestant is twice as fast as the one before."""
    free = {"uniform": "control", "uniform + annealing": "annealed", "closed form + followed draws": "recipe"}
    (tmp_path / "digits").mkdir()
    for name, entries in (("standard", builders.STANDARD), ("pilot-free", free)):
        builders.save_result(builders.race(entries), tmp_path / "digits" / f"race-{name}.nc")
    drawn = script("race").produce(source(script, tmp_path))
    assert list(drawn.figures) == ["", "loss", "pilot-free", "pilot-free-loss"]
    assert drawn.table["contestant"].tolist() == [*builders.STANDARD, *free]
    assert drawn.sentence.count("How many times sooner") == 2
    assert "Pilot-free: How many times sooner the target was reached: closed form + followed draws" in drawn.sentence
    curves = script("speedup_curve").produce(source(script, tmp_path))
    assert list(curves.figures) == ["", "pilot-free"]
    _, table = curves.figures["pilot-free"]
    assert set(table["contestant"]) == {"closed form + followed draws"}
    own = table[(table["fraction"] == 0.6) & (table["against"] == "uniform, constant rate")]
    assert own["speedup"].item() == pytest.approx(4.0, rel=0.2)
