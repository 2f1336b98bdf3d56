"""Curves and images: from a store once, from the figure's own data ever after, and of the present rows alone."""

import numpy as np
import pandas as pd
import pytest


def source(script, folder, **options):
    return script("_common").Source("digits", folder, **options)


@pytest.mark.parametrize("name", ["interpolation", "hessian_spectra", "bands", "handoff"])
def test_a_figure_is_drawn_again_from_its_own_data(script, made, store, name):
    produce = script(name).produce
    fresh, again = produce(source(script, made, store=store)), produce(source(script, made))
    assert fresh.sentence == again.sentence
    pd.testing.assert_frame_equal(fresh.figures[""][1], again.figures[""][1], check_dtype=False)


def test_data_of_other_rows_are_refused(script, builders, made, tmp_path):
    builders.everything(tmp_path)
    path = tmp_path / "digits" / "figure-bands.csv"
    table = pd.read_csv(made / "digits" / "figure-bands.csv")
    table.assign(row=table["row"].str.replace(r"^.", "z", regex=True)).to_csv(path, index=False)
    with pytest.raises(
        script("_common").UserError, match=r"belongs to other rows .*bands.py --preset digits --store DIR"
    ):
        script("bands").produce(source(script, tmp_path))
    path.unlink()
    with pytest.raises(script("_common").UserError, match=r"there is no .*figure-bands.csv"):
        script("bands").produce(source(script, tmp_path))


def test_a_store_without_the_result_is_named(script, made, tmp_path):
    with pytest.raises(script("_common").UserError, match=r"has no result of the probe 'between' of 'unet'"):
        script("interpolation").produce(source(script, made, store=tmp_path))


def test_images_survive_the_table(script):
    stored = script("_stored")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3, 2))
    table = stored.image_frame(pixels, model="a").sample(frac=1, random_state=0)
    np.testing.assert_array_equal(stored.images_of(table), pixels)


def test_losses_on_a_line_are_over_the_mean_of_the_ends(script, builders):
    table = script("interpolation").frame_of(builders.line_result(3.0, ends=0.25)).set_index("position")
    np.testing.assert_allclose(table["value"], [2.0, 1.0, 3.0, 1.0, 2.0])
    np.testing.assert_allclose(table["high"] / table["value"], 1.1)
    assert set(table["ends"]) == {0.25}


def test_the_claim_about_lines_follows_the_numbers_and_names_networks_at_their_draw(script, made):
    said = script("interpolation").produce(source(script, made)).sentence
    # Made up: barriers of 2 for diffusion models and the VAE, and 60 and 120 for the networks of the GAN.
    assert "unet 2 [1.8, 2.2]" in said
    assert "holds in part: theirs, [1.8, 2.2], is lower than GAN [54, 1.3e+02] and not told from VAE [1.8, 2.2]" in said
    assert "gan, generator; gan, discriminator lie within 0.02 nats of ln 2" in said


def test_spectra_are_per_loss(script, builders, made):
    table = script("hessian_spectra").frame_of(builders.curvature_result(loss=0.5))
    whole, bulk = (table[table["view"] == view] for view in ("all", "bulk"))
    assert whole["eigenvalue"].iloc[0] == pytest.approx(-2.0)
    np.testing.assert_allclose(whole["value"], 0.5)
    np.testing.assert_allclose(whole["high"], 0.55)
    # Both probes have half of their weight at 0 and half at 1: four nodes from end to end, 1/4 apart, as two normal densities.
    at, width = bulk["eigenvalue"].to_numpy() * 0.5, 0.25
    normal = [np.exp(-0.5 * ((at - node) / width) ** 2) / (width * np.sqrt(2 * np.pi)) for node in (0, 1)]
    np.testing.assert_allclose(bulk["value"], 0.5 * np.mean(normal, axis=0))
    np.testing.assert_allclose(bulk["width"], width / 0.5)
    np.testing.assert_allclose(bulk["low"], bulk["high"])
    said = script("hessian_spectra").produce(source(script, made)).sentence
    assert "unet 5 [4.9, 5.1] (10 % of the density is negative)" in said
    assert "is lower than GAN [1.5e+02, 3e+02] and not told from VAE [4.9, 5.1]" in said


@pytest.mark.parametrize("old", [False, True])
def test_the_bulk_of_a_spectrum_stands_beside_what_one_eigenvalue_is(script, made, old):
    hessian = script("hessian_spectra")
    densities = hessian.curves(source(script, made), "hessian_spectra", "curvature", hessian.frame_of)
    if old:  # the density alone, of before nodes were kept; its bumps are a hundredth of what lies between the ends
        densities = densities[densities["view"] == "all"].drop(columns=["view", "width"])
    table = hessian.frames.probes(source(script, made).rows("why"), "curvature")
    table["kind"] = [source(script, made).kind(family) for family in table["family"]]
    bulk, whole = hessian.draw(densities, table).axes[:2]
    shown, one = bulk.lines[:2]
    width = 0.01 * (2.5 + 0.5) / 0.5 if old else 0.25 / 0.5
    at = one.get_xdata()
    middle = at[one.get_ydata().argmax()]
    np.testing.assert_allclose(one.get_ydata(), np.exp(-0.5 * ((at - middle) / width) ** 2))
    assert shown.get_ydata().max() == pytest.approx(1)
    assert whole.get_xscale() == "symlog"


def test_bands_that_overlap_are_not_told_apart(script, made):
    drawn = script("bands").produce(source(script, made))
    table = drawn.figures[""][1]
    assert set(table["part"]) == {"band-0-0.5", "band-0.5-1"}
    assert (
        "unet t = 0.6 [0.58, 0.62] (frequency 0 to 0.5) and t = 0.4 [0.38, 0.42] (frequency 0.5 to 1)" in drawn.sentence
    )
    assert "of 3 pairs of neighbouring bands the coarser is known first in 3, the finer in 0, and 0" in drawn.sentence
    close = table.assign(low=table["value"] - 0.3, high=table["value"] + 0.3)
    assert "known first in 0, the finer in 0, and 3 are not told apart" in script("bands").sentence(close)


def test_a_handoff_is_held_against_the_exchange_of_the_noise(script, made):
    drawn = script("handoff").produce(source(script, made))
    # Made up in the rows: 0.7 for the model and 0.5 for the noise, the other way round than what is usual.
    assert "unet t = 0.7 [0.68, 0.72], which lies above that of the noise, t = 0.5 [0.48, 0.52]" in drawn.sentence
    assert "in 0 of 3 families the choice of the model is made later" in drawn.sentence
    assert list(dict.fromkeys(drawn.figures[""][1]["what"])) == [
        "first to second model", "second to first model", "noise exchanged"
    ]  # fmt: skip


def test_half_of_the_image_and_its_estimates(script, made):
    drawn = script("structure").produce(source(script, made))
    assert "unet t = 0.6 [0.58, 0.62]; " in drawn.sentence
    assert "in the noisier half of the times in 3 of 3 families" in drawn.sentence
    assert drawn.figures[""][1].groupby("name")["value"].apply(list)["unet"] == [-5.0, 0.5, 1.0]
    titles = [ax.get_title(loc="center") for ax in drawn.figures["images"][0].axes[:2]]
    assert titles == ["t = 1", "t = 0"]


def test_the_grid_has_the_scores_of_the_rows(script, made):
    drawn = script("same_noise_grid").produce(source(script, made))
    assert "unet 0.9 [0.88, 0.92]; " in drawn.sentence
    assert "above other noise are 3 of 3 diffusion families and 2 of 2 GANs and VAEs" in drawn.sentence
    assert len(drawn.figures[""][0].axes) == 5 * 2 * 2  # two models each, of two images
    assert drawn.figures[""][0]._suptitle.get_text().endswith("(10 of 20 models)")


def test_the_grid_has_ten_rows_and_every_kind_of_model(script):
    grid, kinds = script("same_noise_grid"), {"unet": "diffusion", "dit": "diffusion", "mlp": "diffusion"}
    kinds |= {"gan": "GAN", "gan-image": "GAN", "vae": "VAE"}
    table = pd.DataFrame([{"family": family, "model": f"{family}-{i}"} for family in kinds for i in range(4)])
    shown, said = grid.chosen(table, kinds)
    assert list(shown["model"]) == [
        f"{family}-{i}" for family in ("unet", "dit", "mlp", "gan", "vae") for i in range(2)
    ]
    assert said == " (10 of 24 models; without gan-image)"
    everything, nothing = grid.chosen(table[table["model"].str.endswith("0")], kinds)
    assert (len(everything), nothing) == (6, "")


def test_controls_stand_beside_the_score(script, made):
    drawn = script("controls").produce(source(script, made))
    table = drawn.figures[""][1].set_index(["group", "role"])
    assert table.loc[("unet", "ceiling"), "score"].item() == pytest.approx(1 - 0.001 / 0.5)
    assert list(table.loc[("unet", "reference"), "score"]) == pytest.approx([0.8, 0.6, 0.7])  # Gaussian, mean, optimal
    assert (
        "unet 0.9 [0.88, 0.92] under a ceiling of 0.998, with the Gaussian denoiser 0.8 [0.78, 0.82]" in drawn.sentence
    )
    assert "of 3 diffusion families 3 lie above other noise and 3 above every denoiser" in drawn.sentence


def test_what_is_learnt_changes_only_where_every_measure_says_so(script, builders, tmp_path):
    cases = {
        "alike": {"gap": -0.02, "p": 0.6},
        "changed": {"gap": 0.2},
        "exploded": {"gap": 0.2, "cosine_gap": -0.02},  # a few samples decide one metric
        "by the permutation alone": {"gap": -0.02},
    }
    said = {}
    for name, options in cases.items():
        families = {"uniform": 0.9, "uniform, annealed": 0.91, "recipe": 0.92}
        builders.likeness(tmp_path / name / "digits", families, "race-consistency", contrast={}, **options)
        said[name] = script("what_is_learnt").produce(source(script, tmp_path / name)).sentence
    answers = {
        "alike": "no change is seen by any of them",
        "changed": "what is learnt changes, by every one of them",
        "exploded": "they contradict each other, so that nothing is claimed",
        "by the permutation alone": "they contradict each other, so that nothing is claimed",
    }
    assert {name: [answer in text for answer in answers.values()] for name, text in said.items()} == {
        name: [answer == own for answer in answers.values()] for name, own in answers.items()
    }
    assert all(
        text.count(answers[name]) == 2 for name, text in said.items()
    )  # of the recipe, and of its annealing alone
    assert (
        "by mse 0.71 [0.69, 0.73] against 0.9 [0.88, 0.92] and 0.92 [0.9, 0.94] within, median distance 0.145 against 0.05 and 0.04, "
        "label permutation p = 0.01; by cosine 0.93"
    ) in said["exploded"]


def test_families_over_sets_are_compared(script, builders, tmp_path):
    builders.likeness(tmp_path / "digits")
    builders.likeness(tmp_path / "fashion", {"unet": 0.8, "dit": 0.94, "mlp": 0.92})
    drawn = script("consistency_table").produce(source(script, tmp_path))
    assert "unet digits 0.9 [0.88, 0.92] lies above fashion 0.8 [0.78, 0.82]" in drawn.sentence
    assert "dit digits 0.94 [0.92, 0.96] overlaps fashion 0.94 [0.92, 0.96]" in drawn.sentence
    assert list(drawn.figures["sets"][1].query("group == 'unet'")["name"]) == ["digits", "fashion"]


def test_results_are_foretold_and_shared_models_counted_once(script, capsys):
    asked = []

    def run(command, quiet):
        asked.append((*command[:2], quiet))
        jobs = {"unet-0": {"training": 10.0, "evaluation": 1.0}}
        own = {"x": {"training": 3.0, "evaluation": 0.0}}
        return script("make_results").json.dumps({"jobs": jobs if command[1] in ("likeness", "why") else own})

    # Only these two, so that names of jobs are those of the plan.
    module = script("make_results")
    module.STUDIES = ("likeness", "sizes", "why")
    module.main(["--preset", "digits", "--store", "S"], run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study likeness --preset digits --store S: 11.0 min"
    assert lines[2] == "study why --preset digits --store S: 1.0 min"
    # 10 + 1 of likeness, 3 of sizes, 1 of why, the races share their jobs: 3; the last cannot be foretold.
    assert "in all 18 min" in lines[8]
    assert lines[7].endswith("--consistency --store S: not foretold")
    assert [each for each in asked if not each[2]] == [
        ("study", "likeness", False), ("study", "sizes", False), ("study", "why", False), *[("race", "--preset", False)] * 5
    ]  # fmt: skip
