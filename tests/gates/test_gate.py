"""`cl.gate` on models whose score is known, on trained ones, and on what cannot be used."""

import json
from itertools import permutations

import numpy as np
import pytest
import torch
from gate_laws import UNIT
from PIL import Image

import consistency_lab as cl
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.errors import UserError
from consistency_lab.gates.samples import distances_of, smaller, units_of
from consistency_lab.similarity.labels import labels_of
from consistency_lab.store.results import provenance


def test_a_score_known_in_closed_form_lies_in_the_interval_and_decides(paint):
    """Images x and x + c y: E d = c^2 E y^2, E null = (2 + c^2) E y^2, for all entries normal with one variance."""
    for c, decision in ((0.1, "pass"), (0.5, "fail")):
        result = cl.gate(paint("a"), paint("b", noise=c), at_least=0.95)
        expected = 1 - c**2 / (2 + c**2)
        assert result.attrs["decision"] == decision
        assert result["score_low"][-1, 0] < expected < result["score_high"][-1, 0]
        assert float(result["score"][-1, 0]) == pytest.approx(expected, abs=0.03)


def test_a_self_run_passes_other_weights_fail_and_two_samples_cannot_tell(trained):
    (a, b), _ = trained
    few = {"sampler": "ddim(steps=3)", "at_least": 0.95}
    assert cl.gate(a, a, **few).attrs["decision"] == "pass"
    assert cl.gate(a, b, **few).attrs["decision"] == "fail"
    short = cl.gate(a, a, count=2, **few)
    assert short.attrs["decision"] == "cannot tell"
    assert float(short["more"][0]) > 100
    assert np.isnan(short["score_low"]).all()


def test_without_a_bound_the_second_run_is_the_measure(paint):
    """A reference that varies by itself: the candidate that varies as much passes, though its score is far from 1."""
    a, again = paint("a"), paint("a", noise=0.4, seed=7)
    same = cl.gate(a, paint("b", noise=0.4, seed=8), again, margin=0.1)
    assert same.attrs["decision"] == "pass"
    assert float(same["score"][-1, 0]) < 0.95
    assert float(same["ceiling"][-1, 0]) == pytest.approx(float(same["score"][-1, 0]), abs=0.03)
    worse = cl.gate(a, paint("b", noise=1.0, seed=8), again, margin=0.1)
    assert worse.attrs["decision"] == "fail"
    for result in (same, worse):
        held = result["ceiling"] - result["score"]
        assert result["shortfall"].values == pytest.approx(held.values)
        assert np.isnan(result["bound"]).all()


def test_with_a_bound_the_second_run_is_shown_and_does_not_decide(paint):
    result = cl.gate(paint("a"), paint("b", noise=0.4), paint("a"), at_least=0.5)
    assert result.attrs["decision"] == "pass"
    assert float(result["ceiling"][-1, 0]) == 1
    assert float(result["bound"][0]) == 0.5


def test_one_image_in_twenty_ruined_fails_a_high_bound_and_is_named(paint):
    result = cl.gate(paint("a"), paint("b", ruined=range(0, 1024, 8)), at_least=0.95)
    assert result.attrs["decision"] == "fail"
    assert set(result["worst"].values.tolist()) <= set(range(0, 1024, 8))


def test_all_samples_give_what_compare_gives_for_them():
    """The same distances; the null of units is an estimate of the same mean."""
    digits = cl.load_images("digits").all()
    models = [
        cl.DiffusionModel(f"g{k}", GaussianDenoiser.fit(part, cl.SCHEDULES.build("linear")))
        for k, part in enumerate((digits[:400], digits[400:]))
    ]
    metrics = ["mse", "cosine"]
    result = cl.gate(*models, metrics=metrics, at_least=0.5, count=64, early=False, sampler="ddim(steps=5)")
    whole = cl.compare(models, count=64, metrics=metrics, sampler="ddim(steps=5)", levels=2, ceiling=False)
    last = whole.isel(pair=0, t=-1).sel(sample=result["sample"].values)
    assert result["distance"].values == pytest.approx(last["distance"].values, rel=1e-4, abs=1e-6)
    assert result["null"].mean("sample").values == pytest.approx(last["null"].mean("sample").values, rel=0.1)
    assert result["score"].values[-1] == pytest.approx(last["score"].values, abs=0.01)
    assert result["median_score"].values == pytest.approx(last["family_median_score"].values, abs=0.01)
    assert result["trimmed_score"].values == pytest.approx(last["family_trimmed_score"].values, abs=0.01)


def test_every_pair_of_a_unit_is_in_the_null():
    noise = cl.SharedNoise(3)
    a, b, again = (0.3 * noise.draw(range(8), (1, 5, 5), stream="probe", step=k) for k in range(3))
    for name in ("mse", "ssim(sigma=0.5)", "cosine"):
        metric = cl.METRICS.build(name)
        found = distances_of(metric, UNIT, a, b, again)
        for unit, (i, j) in np.ndindex(2, 1) and [(u, p) for u in range(2) for p in permutations(range(4), 2)]:
            one, other = a[4 * unit + i][None], b[4 * unit + j][None]
            expected = float(metric.between(metric.embed(one), metric.embed(other)))
            assert found.cross[unit, i, j] == pytest.approx(expected)
        assert found.own.reshape(-1) == pytest.approx(metric.between(metric.embed(a), metric.embed(b)).numpy())
        assert found.again.reshape(-1) == pytest.approx(metric.between(metric.embed(a), metric.embed(again)).numpy())
        assert found.excess == pytest.approx(found.own - found.again)
        off = [found.cross[0, i, j] for i, j in permutations(range(4), 2)]
        assert found.nulls[0].mean() == pytest.approx(np.mean(off))
        assert found.nulls[0, 1] == pytest.approx(np.mean([found.cross[0, 1, [0, 2, 3]], found.cross[0, [0, 2, 3], 1]]))


def test_how_many_images_are_embedded_at_a_time_does_not_matter(monkeypatch):
    noise = cl.SharedNoise(3)
    images = [0.3 * noise.draw(range(12), (1, 12, 12), stream="probe", step=k) for k in range(3)]
    metric = cl.METRICS.build("ssim")
    whole = distances_of(metric, UNIT, *images)
    sizes = []
    embed = metric.embed
    monkeypatch.setattr(metric, "embed", lambda batch: sizes.append(len(batch)) or embed(batch))
    monkeypatch.setattr("consistency_lab.gates.samples._VALUES", 1)
    parts = distances_of(metric, UNIT, *images)
    assert sizes == [UNIT] * 9
    assert parts.cross == pytest.approx(whole.cross, rel=1e-6)
    assert parts.again == pytest.approx(whole.again, rel=1e-6)


def test_the_order_is_a_permutation_that_the_seed_draws():
    units = units_of(103, 5)
    assert units.shape == (25, UNIT)
    assert len(set(units.reshape(-1).tolist())) == 100
    assert (units == units_of(103, 5)).all()
    assert (units != units_of(103, 6)).any()
    assert (np.abs(np.diff(units.reshape(-1))) > 1).mean() > 0.9
    assert sorted(units_of(3, 0).reshape(-1).tolist()) == [0, 1, 2]


def test_units_are_of_one_label_and_labels_come_in_any_order():
    labels = labels_of(range(120), (2, 0, 1))
    units = units_of(120, 1, labels)
    under = labels[units]
    assert (under == under[:, :1]).all()
    assert len(set(units.reshape(-1).tolist())) == 120
    assert (np.diff(under[:, 0]) != 0).sum() > 10
    few = units_of(12, 1, labels_of(range(12), (0, 1, 0, 2)))
    assert few.shape == (4, 3)  # the rarest label has three
    assert set(map(tuple, labels_of(range(12), (0, 1, 0, 2))[few].tolist())) == {(0, 0, 0), (1, 1, 1), (2, 2, 2)}


def test_neither_batch_nor_order_of_asking_matters(paint):
    a, b = paint("a"), paint("b", noise=0.3)
    one, other = (cl.gate(a, b, at_least=0.5, count=64, early=False, batch=batch) for batch in (8, 32))
    assert (one["sample"].values == other["sample"].values).all()
    assert (one["distance"].values == other["distance"].values).all()
    shared = [look for look in one["samples"].values.tolist() if look in other["samples"].values.tolist()]
    assert shared == [32, 64]
    at = [each.assign_coords(look=each["samples"].values)["score"].sel(look=shared).values for each in (one, other)]
    assert at[0] == pytest.approx(at[1])
    again = cl.gate(a, b, at_least=0.5, count=64, early=False, batch=8)
    assert again.identical(one)
    mirrored = cl.gate(b, a, at_least=0.5, count=64, early=False, batch=8)
    assert mirrored["score"].values == pytest.approx(one["score"].values)


def test_another_seed_draws_other_noise_and_another_order(paint):
    a, b = paint("a"), paint("b", noise=0.3)
    one, other = (cl.gate(a, b, at_least=0.5, noise=cl.SharedNoise(seed)) for seed in (0, 1))
    assert one["sample"].values[:8].tolist() != other["sample"].values[:8].tolist()


def test_it_stops_as_soon_as_it_can_tell_and_takes_all_if_told_so(paint):
    a, b = paint("a"), paint("b", noise=1.0)
    result = cl.gate(a, b, at_least=0.95, batch=8)
    assert result.attrs["decision"] == "fail"
    assert result.sizes["sample"] < 100
    before = result["score_high"].values[:-1, 0]
    assert not (before < 0.95).any()
    whole = cl.gate(a, b, at_least=0.95, batch=8, count=128, early=False)
    assert whole.sizes["sample"] == 128
    assert whole["samples"].values.tolist() == list(range(8, 129, 8))


def test_several_metrics_share_the_error_and_all_must_pass(paint):
    a, b = paint("a"), paint("b", noise=0.3)
    alone = cl.gate(a, b, at_least=0.5, count=64, early=False)
    both = cl.gate(a, b, metrics=("mse", "cosine"), at_least=(0.5, 0.5), count=64, early=False)
    assert (both["score_low"].values[-1, 0] < alone["score_low"].values[-1, 0]).all()
    mixed = cl.gate(a, b, metrics=("mse", "cosine"), at_least=(0.5, 0.999))
    assert mixed["decision"].values.tolist()[1] == "fail"
    assert mixed.attrs["decision"] == "fail"
    assert "split between 2 metrics" in mixed.attrs["interval"]


def write(folder, images, names):
    folder.mkdir()
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(((image.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[0]).save(folder / name)
    return cl.load_folder_model(folder)


def test_folders_are_paired_by_name_and_seen_whole(paint, tmp_path):
    noise = cl.SharedNoise(0)
    images = [model.generate(noise, range(44)) for model in (paint("a"), paint("b", noise=0.3))]
    names = [f"{i:03}.png" for i in range(44)]
    reference = write(tmp_path / "ref", images[0], names)
    order = [*range(10, 44), *range(10)]
    candidate = write(tmp_path / "cand", images[1][order][:43], [names[i] for i in order][:43])
    result = cl.gate(reference, candidate, at_least=0.5)
    assert result.sizes["sample"] == 40
    assert "have no partner of their name" in result.attrs["warnings"]
    expected = (images[0].clamp(-1, 1) - images[1].clamp(-1, 1)).pow(2).mean((1, 2, 3))
    for name, distance in zip(result["sample_name"].values, result["distance"].values[:, 0], strict=True):
        assert distance == pytest.approx(float(expected[int(name)]), rel=0.05, abs=1e-4)
    assert "not known" in provenance(result)["models"][0]["noise"]
    with pytest.raises(cl.UserError, match="have 43 in common"):
        cl.gate(reference, candidate, at_least=0.5, count=44)


def test_sub_folders_are_labels_and_clips_are_samples(paint, tmp_path):
    noise = cl.SharedNoise(0)
    images = [model.generate(noise, range(48)) for model in (paint("a"), paint("b", noise=0.3))]
    names = [f"prompt {i % 3}/{i}.png" for i in range(48)]
    labelled = [write(tmp_path / name, part, names) for name, part in zip("rc", images, strict=True)]
    result = cl.gate(*labelled, at_least=0.5, early=False)
    under = [name.partition("/")[0] for name in result["sample_name"].values]
    assert result.sizes["sample"] == 48
    assert all(len(set(under[first : first + UNIT])) == 1 for first in range(0, 48, UNIT))
    twos = [
        write(tmp_path / f"{name}-twos", part[:24], [f"{i // 2}/{i}.png" for i in range(24)])
        for name, part in zip("rc", images, strict=True)
    ]
    pairs = cl.gate(*twos, at_least=0.5, early=False)
    assert pairs.sizes["sample"] == 24
    assert (pairs["label"].values.reshape(12, 2)[:, :1] == pairs["label"].values.reshape(12, 2)).all()
    frames = [f"clip {i // 3:02}/frame_{i % 3}.png" for i in range(48)]
    clips = [write(tmp_path / f"{name}-clips", part, frames) for name, part in zip("rc", images, strict=True)]
    result = cl.gate(*clips, at_least=0.5, early=False)
    assert result.sizes["sample"] == 16
    apart = (images[0].clamp(-1, 1) - images[1].clamp(-1, 1)).pow(2).mean((1, 2, 3)).reshape(16, 3).mean(1)
    for name, distance in zip(result["sample_name"].values, result["distance"].values[:, 0], strict=True):
        assert distance == pytest.approx(float(apart[int(name.split()[1])]), rel=0.05, abs=1e-4)


def test_conditional_models_are_held_to_a_null_within_labels(tmp_path):
    digits = cl.load_images("digits").take(range(80), "few digits")
    small = {"network": "mlp(width=8, depth=1)", "steps": 2, "batch": 8, "device": "cpu", "progress": False}
    model = cl.train(digits, conditional=True, store=tmp_path, **small)
    result = cl.gate(model, model, at_least=0.5, count=100, early=False, sampler="ddim(steps=2)")
    labels = result["sample"].values.reshape(-1, UNIT) % 10
    assert (labels == labels[:, :1]).all()
    assert provenance(result)["labels"] == list(range(10))
    asked = cl.gate(model, model, at_least=0.5, labels=[3], count=8, sampler="ddim(steps=2)")
    three = model.generate(cl.SharedNoise(0), asked["worst"].values.tolist(), "ddim(steps=2)", labels=[3])
    shown = asked["worst_images"].sel(side="candidate").values
    assert shown == pytest.approx(((three.clamp(-1, 1) + 1) * 127.5).round().numpy())


def test_a_candidate_that_is_not_finite_fails_whatever_the_rest_says(paint):
    result = cl.gate(paint("a"), paint("b", broken=range(0, 1024, 50)), at_least=0.5)
    assert result.attrs["decision"] == "fail"
    (said,) = json.loads(result.attrs["warnings"])
    assert "b gave values that are not finite" in said
    assert not set(range(0, 1024, 50)) & set(result["sample"].values.tolist())
    assert np.isfinite(result["distance"]).all()
    with pytest.raises(cl.UserError, match="'b' made no four images that are all finite"):
        cl.gate(paint("a"), paint("b", broken=range(1024)), at_least=0.5)
    with pytest.raises(cl.UserError, match="'a', which the candidate is held to"):
        cl.gate(paint("a", broken=range(1024)), paint("b"), at_least=0.5)


def test_images_that_ignore_the_noise_cannot_be_judged(paint):
    flat = cl.wrap_generator(lambda noise: torch.zeros_like(noise), shape=(1, 4, 4), name="flat")
    result = cl.gate(flat, flat, at_least=0.5, count=64)
    assert result.attrs["decision"] == "cannot tell"
    assert "do not depend on the noise" in result.attrs["warnings"]


def test_one_sample_that_holds_the_distance_is_said(paint):
    result = cl.gate(paint("a"), paint("b", noise=0.02, ruined=[17]), at_least=0.5, count=200, early=False)
    (said,) = json.loads(result.attrs["warnings"])
    assert said.startswith("sample 17 alone holds 9")
    assert int(result["worst_sample"][0]) == 17
    own = result["distance"].values[:, 0]
    assert float(result["worst_share"][0]) == pytest.approx(own.max() / own.sum())
    assert float(result["trimmed_score"][0]) > float(result["score"][-1, 0])


def test_the_worst_pictures_are_those_of_the_models(paint):
    a, b = paint("a"), paint("b", noise=0.3)
    result = cl.gate(a, b, at_least=0.5, count=96, early=False)
    ranked = result["sample"].values[np.argsort(-result["distance"].values[:, 0])][:4]
    assert sorted(ranked.tolist()) == result["worst"].values.tolist()
    for side, model in (("reference", a), ("candidate", b)):
        images = model.generate(cl.SharedNoise(0), result["worst"].values.tolist())
        expected = ((images.clamp(-1, 1) + 1) * 127.5).round().numpy()
        assert (result["worst_images"].sel(side=side).values == expected).all()


def test_large_pictures_are_kept_small():
    image = torch.arange(3 * 512 * 256, dtype=torch.float32).reshape(3, 512, 256)
    small = smaller(image)
    assert small.shape == (3, 128, 64)
    assert small == pytest.approx(image.reshape(3, 128, 4, 64, 4).mean((2, 4)))
    assert smaller(image[:, :128, :100]) is not None
    assert (smaller(image[:, :128, :100]) == image[:, :128, :100]).all()


SLIPS = {
    "nothing to hold to": (lambda a, b: cl.gate(a, b), "a second run of the reference .*--again"),
    "bound of 1": (lambda a, b: cl.gate(a, b, at_least=1.0), "from 0 to below 1, not 1.0"),
    "bound in percent": (lambda a, b: cl.gate(a, b, at_least=95), "from 0 to below 1, not 95"),
    "bounds": (lambda a, b: cl.gate(a, b, at_least=[0.5, 0.6]), "2 bounds were given for 1 metrics"),
    "psnr": (lambda a, b: cl.gate(a, b, metrics="psnr", at_least=0.5), "psnr is no distance"),
    "metric": (lambda a, b: cl.gate(a, b, metrics="msee", at_least=0.5), "Did you mean 'mse'"),
    "no metric": (lambda a, b: cl.gate(a, b, metrics=[], at_least=0.5), "one metric or more"),
    "metric of another type": (lambda a, b: cl.gate(a, b, metrics=3, at_least=0.5), "is given as text"),
    "baseline of another type": (lambda a, b: cl.gate(a, b, baseline=3), "a path is text"),
    "labels": (lambda a, b: cl.gate(a, b, at_least=0.5, labels=["x"]), "labels are whole numbers"),
    "twice": (lambda a, b: cl.gate(a, b, metrics=["mse", "mse"], at_least=0.5), "named twice"),
    "count": (lambda a, b: cl.gate(a, b, at_least=0.5, count=1), "at least 2 samples"),
    "batch": (lambda a, b: cl.gate(a, b, at_least=0.5, batch=0), "batch is a whole number"),
    "error": (lambda a, b: cl.gate(a, b, at_least=0.5, error=0), "error is a probability"),
    "margin": (lambda a, b: cl.gate(a, b, a, margin=2), "margin is a number from 0"),
    "model": (lambda a, b: cl.gate(a, "b", at_least=0.5), "is no model"),
    "noise": (lambda a, b: cl.gate(a, b, at_least=0.5, noise=3), "SharedNoise"),
    "baseline": (lambda a, b: cl.gate(a, b, baseline="none.json"), "there is no baseline none.json"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_cannot_be_used_is_one_sentence(paint, slip):
    call, words = SLIPS[slip]
    with pytest.raises(cl.UserError, match=words) as caught:
        call(paint("a"), paint("b"))
    assert len(str(caught.value).splitlines()) == 1


def test_models_of_other_shapes_are_refused(paint):
    with pytest.raises(cl.UserError, match="starts from noise of shape"):
        cl.gate(paint("a"), paint("b", shape=(1, 8, 8)), at_least=0.5)
    grown = paint("grown")
    grown.generate = lambda noise, indices: noise.initial(indices, (1, 8, 8))
    with pytest.raises(cl.UserError, match="'grown' makes images of 1x8x8 and 'a' of 1x4x4"):
        cl.gate(paint("a"), grown, at_least=0.5)


def test_one_image_in_a_folder_is_too_few(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), 90, dtype=np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(UserError, match=r"2 samples|one image"):
        cl.gate(*(cl.load_folder_model(tmp_path / name) for name in ("one", "other")), at_least=0.5)
