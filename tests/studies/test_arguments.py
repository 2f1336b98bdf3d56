"""What is no model, family, image set or result is refused in a sentence, before anything is computed."""

import pytest
import torch
import xarray as xr

import consistency_lab as cl
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import VAE
from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.metrics.classifier import SmallClassifier
from consistency_lab.paper.emergence import emergence_table
from consistency_lab.paper.likeness import likeness_table
from consistency_lab.paper.pairs import pair_table
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.race.running import Watch
from consistency_lab.paper.race.table import finals_table, race_table
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.sizes import size_sweep
from consistency_lab.paper.why import Why
from consistency_lab.similarity.quality import measure_quality, set_classifier
from consistency_lab.store.runs import Store
from consistency_lab.store.shapes import shape_of
from consistency_lab.studies.alignment import aligned
from consistency_lab.studies.connectivity import probe_connectivity
from consistency_lab.studies.contrast_subject import contrast_subject
from consistency_lab.studies.fleet import Family, Fleet, train_fleet
from consistency_lab.training.settings import TrainingSettings

MODEL = DiffusionModel("exact", ConstantDenoiser(torch.zeros(1, 8, 8), SCHEDULES.build("linear")))
VAE_MODEL = ContrastModel("vae-s0", VAE((1, 8, 8), width=4))
IMAGES = ImageSet("noise", torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)
NO_MODEL = r"a str is no model; give what load\('unet-s0'\) returns"
NO_SET = r"write load_images\('digits'\)"
NO_FAMILY = r"a DiffusionModel is no family; give what Family.of\(name, models\)"
RULER, SETTINGS = Protocol(("mse",)), TrainingSettings(steps=2)
JUDGE = SmallClassifier((1, 8, 8), 2, "noise")


def refused(message, *calls):
    for call in calls:
        with pytest.raises(UserError, match=message):
            call()


def test_models_are_no_strings(tmp_path):
    refused(
        NO_MODEL,
        lambda: probe_connectivity("unet-s0", MODEL, IMAGES, IMAGES),
        lambda: probe_connectivity(MODEL, "unet-s0", IMAGES, IMAGES),
        lambda: contrast_subject("unet-s0", IMAGES),
        lambda: aligned("unet-s0", MODEL),
        lambda: aligned(MODEL, "unet-s0"),
        lambda: measure_quality(["unet-s0"], IMAGES, JUDGE),
        lambda: Family.of("unet", ["unet-s0"]),
    )
    refused("a family is a list of models", lambda: Family.of("unet", "unet-s0"), lambda: Family.of("unet", []))


def test_models_of_another_kind():
    refused("'vae-s0' is no diffusion model", lambda: probe_connectivity(VAE_MODEL, MODEL, IMAGES, IMAGES))
    refused(r"'exact' is no GAN or VAE .* diffusion_subject\(model, images\)", lambda: contrast_subject(MODEL, IMAGES))


def test_image_sets_are_no_strings(tmp_path):
    store, rows, families = Store(tmp_path), Rows(tmp_path / "rows.jsonl"), [Family.of("exact", [MODEL])]
    refused(
        NO_SET,
        lambda: probe_connectivity(MODEL, MODEL, "digits", IMAGES),
        lambda: probe_connectivity(MODEL, MODEL, IMAGES, "digits"),
        lambda: contrast_subject(VAE_MODEL, "digits"),
        lambda: set_classifier("digits", store),
        lambda: measure_quality([MODEL], "digits", JUDGE),
        lambda: measure_quality([MODEL], IMAGES, JUDGE, training="digits"),
        lambda: Fleet("digits", {}, store),
        lambda: train_fleet("digits", {"a": SETTINGS}, store),
        lambda: size_sweep("digits", [4], SETTINGS, store, rows),
        lambda: likeness_table(families, "digits", IMAGES, rows, RULER),
        lambda: likeness_table(families, IMAGES, "digits", rows, RULER),
        lambda: emergence_table(families, {}, "digits", rows, RULER),
        lambda: pair_table(families, "digits", rows, RULER),
        lambda: Why("digits", IMAGES, store, rows),
        lambda: Why(IMAGES, "digits", store, rows),
        lambda: Watch(IMAGES, "digits", JUDGE),
    )
    assert not list(tmp_path.iterdir())


def test_families_and_jobs(tmp_path):
    store, rows = Store(tmp_path), Rows(tmp_path / "rows.jsonl")
    refused(
        NO_FAMILY,
        lambda: likeness_table([MODEL], IMAGES, IMAGES, rows, RULER),
        lambda: emergence_table([MODEL], {}, IMAGES, rows, RULER),
        lambda: pair_table([MODEL], IMAGES, rows, RULER),
        lambda: Why(IMAGES, IMAGES, store, rows).table([MODEL]),
    )
    refused("Did you mean 'line'", lambda: Why(IMAGES, IMAGES, store, rows).table([], ["lin"]))
    refused("the job 'a' is a dict; give settings", lambda: train_fleet(IMAGES, {"a": {"steps": 3}}, store))
    refused("the noise is a SharedNoise", lambda: probe_connectivity(MODEL, MODEL, IMAGES, IMAGES, noise=1))


@pytest.mark.parametrize("table", [race_table, finals_table])
def test_a_race_is_no_other_result(table):
    for other in ("race.nc", xr.Dataset(attrs={"kind": "landscape"})):
        refused("this needs the result of a race", lambda other=other: table(other))


@pytest.mark.parametrize("table", [race_table, finals_table])
def test_a_race_without_one_of_its_variables_says_which(table):
    race = xr.Dataset({"crossing": ("seed", [1.0]), "batch": ("seed", [32])}, attrs={"kind": "race"})
    race.attrs["shape"] = shape_of(race)
    refused("has lost batch", lambda: table(race.drop_vars("batch")))


def test_arguments_of_another_type_are_refused_in_a_sentence(tmp_path):
    images, settings = cl.load_images("digits"), cl.TrainingSettings(network="mlp(width=8, depth=1)", steps=1)
    for options, said in (
        ({"jobs": ["m"]}, "jobs are a dict of name -> settings, not a list"),
        ({"jobs": {5: settings}}, "a name is text, not 5"),
        ({"store": 3}, "a path is text, not a int"),
        ({"workers": "2"}, "workers are a whole number, not '2'"),
        ({"workers": True}, "workers are a whole number, not True"),
    ):
        with pytest.raises(cl.UserError, match=said):
            train_fleet(images, **{"jobs": {"m": settings}, "store": tmp_path / "runs", **options})
    with pytest.raises(cl.UserError, match="a name is text, not 5"):
        cl.train(images, settings=settings, name=5, store=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_fleet_takes_the_root_of_its_store_as_training_does(tmp_path):
    settings = cl.TrainingSettings(network="mlp(width=8, depth=1)", steps=1)
    train_fleet(cl.load_images("digits"), {"m": settings}, str(tmp_path / "runs"))
    assert [run.name for run in cl.Store(tmp_path / "runs").runs()] == ["m"]
