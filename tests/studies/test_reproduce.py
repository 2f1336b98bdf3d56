import json

import numpy as np
import pytest

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.contrast.vae import train_vae
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import METRICS
from consistency_lab.store.results import provenance, save_result
from consistency_lab.store.runs import Store
from consistency_lab.studies.agreement import EQUAL
from consistency_lab.studies.reproduce import read_recorded
from consistency_lab.training.train import load_model

SMALL = {"network": "mlp(width=8)", "steps": 4, "device": "cpu", "progress": False}
FEW = {"count": 6, "sampler": "ddim(steps=3)", "levels": 3}


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits")


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "runs"
    for seed in range(2):
        cl.train(images, seed=seed, store=folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def models(store):
    return [cl.load(f"mlp-s{seed}", store=store, device="cpu") for seed in range(2)]


@pytest.fixture(scope="module")
def comparison(models, images):
    return cl.compare(models, cl.SharedNoise(3), images=images, metrics=["mse", "band(low=0.0, high=0.5)"], **FEW)


def again(result, store, **options):
    recorded = read_recorded(result, Store(store), **options)
    return recorded.measured(Store(store), recorded.metrics(), device="cpu", progress=False)


def made_of(result, **changes):
    """The result with other provenance; None takes an entry out."""
    facts = {**provenance(result), **changes}
    return result.assign_attrs(provenance=json.dumps({k: v for k, v in facts.items() if v is not None}))


def test_a_comparison_is_repeated_from_a_store_and_from_nothing(comparison, store, tmp_path):
    for place in (store, tmp_path / "empty"):
        found = again(comparison, place)
        assert {each.status for each in found.agreements} == {EQUAL}
        assert found.differently == []
        assert found.result.drop_attrs().identical(comparison.drop_attrs())
    assert len(Store(tmp_path / "empty").runs()) == 2


@pytest.mark.parametrize("what", ["difficulty", "line", "between", "plane", "vae"])
def test_probes_are_repeated(what, models, images, tmp_path):
    a, b = models
    few = {"count": 5, "seed": 2, "bins": 3}
    if what == "difficulty":
        result = cl.probe_difficulty(a, images, detail=4, **few)
    elif what == "plane":
        result = cl.probe_plane(a, images, points=5, span=0.5, **few)
    elif what == "vae":
        vae = train_vae(images, autoencoder="conv(latent=3, width=4)", steps=2, batch=4, device="cpu", progress=False)
        result = cl.line_landscape(cl.contrast_subject(vae, images, count=5, seed=1), points=5, seed=4)
    else:
        result = cl.probe_landscape(
            a, images, towards=b if what == "between" else None, points=5, one_dimensional=True, **few
        )
    found = again(result, tmp_path / "empty")
    assert {each.status for each in found.agreements} == {EQUAL}
    assert found.result.drop_attrs().identical(result.drop_attrs())


def test_guided_raw_and_renamed_models_are_found_again(models, images, tmp_path):
    labelled = cl.train(images, conditional=True, **SMALL)
    raw = load_model(models[0].folder, weights="raw", name="rough", device="cpu")
    result = cl.compare([labelled.guided(2.0), raw], labels=[1, 2], metrics=["mse"], **FEW)
    found = again(result, tmp_path / "empty")
    assert found.result["model"].values.tolist() == ["mlp-s0-cfg2", "rough"]
    assert {each.status for each in found.agreements} == {EQUAL}


def test_a_difficulty_without_snapshots_is_repeated_without(images, tmp_path):
    model = cl.train(images, **{**SMALL, "steps": 40})  # not kept, so that nothing is known of its way
    result = cl.probe_difficulty(model, images, count=3, bins=2)
    assert {each.status for each in again(result, tmp_path / "runs").agreements} == {EQUAL}


def test_the_command_says_what_agrees_and_what_was_made_differently(comparison, store, tmp_path, capsys):
    file, options = tmp_path / "c.nc", ["--store", str(store), "--device", "cpu", "--quiet"]
    save_result(comparison, file)
    assert main(["reproduce", str(file), *options, "--out", str(tmp_path / "new.nc")]) == 0
    said = capsys.readouterr().out
    assert "are the same" in said
    assert cl.load_result(tmp_path / "new.nc").drop_attrs().identical(comparison.drop_attrs())
    wrong = comparison.copy(deep=True)
    wrong["family_score"][:] = wrong["family_score_high"] + 0.01
    versions = {**provenance(comparison)["versions"], "torch": "1.0"}
    save_result(made_of(wrong, versions=versions, threads=99), file)
    assert main(["reproduce", str(file), *options]) == 1
    said = capsys.readouterr().out
    assert "These do not: family_score." in said
    assert "version of torch: 1.0 then" in said
    assert "threads: 99 then" in said


def test_a_dry_run_says_what_it_would_train_and_trains_nothing(comparison, store, tmp_path, capsys):
    file = tmp_path / "c.nc"
    save_result(comparison, file)
    planned = []
    for place in (store, tmp_path / "empty"):
        assert main(["reproduce", str(file), "--store", str(place), "--dry-run", "--json"]) == 0
        planned.append(json.loads(capsys.readouterr().out)["models"])
    assert planned[0]["mlp-s1"].startswith("load ")
    assert planned[1]["mlp-s1"] == "train a model on digits: network=mlp(width=8), steps=4, seed=1"
    assert not (tmp_path / "empty").exists()
    assert main(["reproduce", str(file), "--store", str(store), "--dry-run", "--json", "--force"]) == 0
    assert "train a model" in json.loads(capsys.readouterr().out)["models"]["mlp-s0"]


def test_what_cannot_be_repeated_is_refused_with_what_is_missing(comparison, models, images, store, tmp_path):
    foreign = cl.wrap_generator(lambda z: z.tanh(), shape=(1, 8, 8), noise_shape=(1, 8, 8), name="theirs")
    mixed = cl.compare([models[0], foreign], count=4)
    own = cl.compare(models, metrics=[METRICS.build("mse")], **FEW)
    facts = provenance(comparison)
    started = {name: {**spec, "start": {"weights": "w", "steps": 3}} for name, spec in facts["specs"].items()}
    unknown = {
        name: {**spec, "data": {**spec["data"], "name": "mine", "fingerprint": "f" * 64}}
        for name, spec in facts["specs"].items()
    }
    other = {name: {**spec, "data": {**spec["data"], "fingerprint": "f" * 64}} for name, spec in facts["specs"].items()}
    empty = tmp_path / "empty"
    for result, said in (
        (mixed, "'theirs' was not trained by this package"),
        (own, "the metric 'mse' was given as an object"),
        (made_of(comparison, asked=None), "of an earlier version, which did not record all that was asked"),
        (made_of(comparison, specs=None), r"did not record the spec of 'mlp-s0', and .*empty does not have its run"),
        (
            made_of(comparison, specs=started),
            "'mlp-s0' cannot be trained again from its spec: it goes on from another model",
        ),
        (made_of(comparison, specs=unknown), r"the images 'mine' \(fingerprint ffffffffffff\) are missing"),
        (made_of(comparison, specs=other), "trained on other images than the 'digits' that are here"),
        (comparison.assign_attrs(kind="quality"), "a result of the kind 'quality' cannot be measured again"),
    ):
        with pytest.raises(UserError, match=said):
            again(result, empty)
    assert not empty.exists()
    found = again(made_of(comparison, specs=None), store)  # an older result, whose runs are there
    assert {each.status for each in found.agreements} == {EQUAL}


def test_images_are_found_by_their_fingerprint(store, images, models, tmp_path):
    few = images.take(range(100), "the first")
    np.savez(tmp_path / "few.npz", images=few.pixels.numpy(), labels=few.labels.numpy())
    result = cl.compare(models, images=few, metrics=["mse"], **FEW)
    with pytest.raises(UserError, match=r"the images 'the first' .* name their file or folder with --data"):
        again(result, store)
    given = cl.load_images(str(tmp_path / "few.npz"))
    result = cl.compare(models, images=given, metrics=["mse"], **FEW)
    found = again(result, store, data=["digits", str(tmp_path / "few.npz")])
    assert {each.status for each in found.agreements} == {EQUAL}
