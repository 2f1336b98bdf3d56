"""Figures and frames of what stands beside a comparison: every number that is drawn is the result's own."""

import pytest

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.interop.generator import wrap_generator
from consistency_lab.intervals import mean_interval
from consistency_lab.plots.copies import CHANCE, copies, copies_frame
from consistency_lab.plots.frozen import OWN, SAME_STATES, frozen, frozen_frame
from consistency_lab.plots.layers import layer_frame, layers
from consistency_lab.plots.quality import quality, quality_frame
from consistency_lab.plots.snapshots import CAVEAT, snapshot_frame, snapshots
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.frozen import compare_frozen
from consistency_lab.similarity.quality import measure_quality
from consistency_lab.similarity.representations import compare_representations
from consistency_lab.similarity.reproducibility import measure_reproducibility
from consistency_lab.similarity.snapshots import compare_snapshots
from consistency_lab.training.train import train

SMALL = {"network": "mlp(width=16, depth=1)", "steps": 50, "batch": 32, "snapshots": 2, "device": "cpu"}


def plain(images):
    return images.flatten(1)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(100), "some digits")


@pytest.fixture(scope="module")
def models(digits, tmp_path_factory):
    store = tmp_path_factory.mktemp("runs")
    return [train(digits, seed=seed, store=store, progress=False, **SMALL) for seed in range(3)]


def texts(figure):
    found = [
        text.get_text()
        for ax in figure.axes
        for text in (*ax.texts, ax.title, *ax.get_xticklabels(), *ax.get_yticklabels())
    ]
    return [*found, figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]


def cell(table, **at):
    for column, value in at.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_a_frozen_comparison(models, digits):
    along = compare(models, count=8, sampler="ddim(steps=4)", levels=3)
    ds = compare_frozen(models, digits, count=8, along=along)
    table, pair, t = frozen_frame(ds, "mse"), str(ds["pair"].values[1]), float(ds["t"][1])
    one = ds.sel(metric="mse", pair=pair, t=t)
    row = cell(table, pair=pair, t=t, name="drift")
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        [float(one[f"drift{end}"]) for end in ("", "_low", "_high")]
    )
    assert cell(table, pair=pair, t=t, name=OWN)["value"] == pytest.approx(float(one["along_distance"]))
    row = cell(table, pair=pair, t=t, name=SAME_STATES)
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        [float(x) for x in mean_interval(one["distance"].values)]
    )
    assert SAME_STATES in texts(frozen(ds))
    alone = compare_frozen(models, digits, count=8, levels=2)
    assert set(frozen_frame(alone)["name"]) == {SAME_STATES}
    assert "made without a comparison along own trajectories" in texts(frozen(alone))


def test_layers(models, digits):
    ds = compare_representations(models, digits, times=(0.3,), count=8)
    table, layer = layer_frame(ds), str(ds["layer"].values[-1])
    at = {"layer": layer, "t": 0.3}
    row = cell(table, quantity="family", layer=layer)
    assert row["value"] == pytest.approx(float(ds["family_cka"].sel(at)))
    assert row["high"] == pytest.approx(float(ds["family_cka_high"].sel(at)))
    row = cell(table, quantity="input", layer=layer, of=models[0].name)
    assert row["value"] == pytest.approx(float(ds["input_cka"].sel(at).sel(model=models[0].name)))
    said = texts(layers(ds))
    assert layer in said
    assert "network.embedding" not in said  # it is told the time alone
    assert "all models" in said
    two = texts(layers(compare_representations(models[:2], digits, times=(0.3,), count=8)))
    assert f"{models[0].name} | {models[1].name}" in two


def generator(name, mean):
    return wrap_generator(lambda noise: mean + 0.1 * noise, shape=(1, 2, 2), name=name)


def test_copies():
    images = ImageSet("gaussians", 0.1 * SharedNoise(5).initial(range(30), (1, 2, 2)))
    pair = [generator("a", 0.0), generator("b", 0.1)]
    ds = measure_reproducibility(pair, plain, images, count=10)
    table = copies_frame(ds)
    row = cell(table, quantity="RP", of="a | b", threshold=0.6)
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        [float(ds[f"rp{end}"].sel(threshold=0.6).squeeze()) for end in ("", "_low", "_high")]
    )
    assert cell(table, of=CHANCE, threshold=0.6)["value"] == pytest.approx(
        float(ds["null_rp"].sel(threshold=0.6).squeeze())
    )
    assert cell(table, quantity="GL", of="b", threshold=0.9)["value"] == float(ds["gl"].sel(model="b", threshold=0.9))
    assert {"a | b", CHANCE, "training images"} <= set(texts(copies(ds)))
    assert "made without the training set" in texts(copies(measure_reproducibility(pair, plain, count=10)))


def test_quality():
    images = ImageSet("gaussians", 0.1 * SharedNoise(5).initial(range(60), (1, 2, 2)))
    ds = measure_quality([generator("a", 0.0), generator("b", 0.1)], images, plain, count=30)
    table, first = quality_frame(ds), str(ds["measure"].values[0])
    row = cell(table, measure=first, row="b")
    assert (row["value"], row["low"], row["high"], row["bias"]) == pytest.approx(
        [
            float(ds[name].sel(row="b").values.ravel()[0])
            for name in ("value", "value_low", "value_high", "frechet_bias")
        ]
    )
    assert (row["role"], row["samples"], row["better"]) == ("model", 30, "lower")
    assert table[table["measure"] != first]["bias"].isna().all()
    assert {"a", "b", "other real images", "coverage"} <= set(texts(quality(ds)))


def test_snapshots(models, digits):
    ds = compare_snapshots(models, images=digits, count=4, sampler="ddim(steps=2)")
    table, name = snapshot_frame(ds, "mse"), models[1].name
    row = cell(table, quantity="to final", of=name, step=25)
    one = ds.sel(model=name, step=25, metric="mse")
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        [float(one[f"to_final{end}"]) for end in ("", "_low", "_high")]
    )
    row = cell(table, of="with the Gaussian denoiser", step=50)
    assert row["value"] == pytest.approx(float(ds["reference_score"].sel(reference="gaussian", step=50, metric="mse")))
    said = texts(snapshots(ds))
    assert CAVEAT in said
    assert {name, "all runs", "with the optimal denoiser", "25", "50"} <= set(said)
    assert "one run alone" in texts(snapshots(compare_snapshots(models[:1], count=4, sampler="ddim(steps=2)")))


def test_another_kind_is_refused(models, digits):
    ds = compare_snapshots(models[:1], count=4, sampler="ddim(steps=2)")
    for figure in (frozen, layers, copies, quality):
        with pytest.raises(UserError, match="needs a result of kind"):
            figure(ds)
