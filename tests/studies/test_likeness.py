import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.runs import Store
from consistency_lab.studies import likeness
from consistency_lab.studies.fleet import train_fleet
from consistency_lab.studies.quality import quality_table, set_classifier
from consistency_lab.studies.rows import Rows
from consistency_lab.training.settings import TrainingSettings

FEW = {"count": 12, "quality_count": 60, "sampler": Sampler(steps=6)}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").split(1400, 397, seed=0)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return set_classifier(load_images("digits"), Store(tmp_path_factory.mktemp("store")), steps=60)


def family(name, digits, spread):
    models = []
    for seed in range(3):
        half = digits[0].split(400, 400, seed=seed)[0].all()
        noise = torch.randn(half.shape, generator=torch.Generator().manual_seed(seed))
        models.append(
            DiffusionModel(f"{name}-{seed}", GaussianDenoiser.fit(half + spread * noise, SCHEDULES.build("linear")))
        )
    return models


class Straw:
    """A generator whose images do not depend on much."""

    noise_shape, facts = (3,), {"kind": "straw"}

    def __init__(self, name):
        self.name = name

    def generate(self, noise, indices):
        return torch.tanh(noise.initial(indices, (3,)).mean(1)).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()


def test_rows_are_kept_and_go_on(digits, classifier, tmp_path, monkeypatch):
    families = {
        "clean": family("clean", digits, 0.0),
        "noisy": family("noisy", digits, 0.3),
        "straw": [Straw(f"s{i}") for i in range(3)],
    }
    rows = Rows(tmp_path / "rows.jsonl")
    table = likeness.likeness_table(families, *digits, classifier, rows, **FEW).set_index("family")
    assert list(table.index) == ["clean", "noisy", "straw", "clean | noisy"]  # the straw starts from other noise
    assert table.loc["clean", "mse_score"] > 0.9
    assert table.loc["clean", "mse_low"] <= table.loc["clean", "mse_score"] <= table.loc["clean", "mse_high"] <= 1
    assert table.loc["clean | noisy", "mse_score"] < table.loc["clean", "mse_score"]
    assert table.loc["straw", "mse_score"] == 1.0
    assert list(table["fit"]) == [True, True, False, None]
    assert len(rows) == 7
    for name in ("compare", "quality_table"):
        monkeypatch.setattr(likeness, name, lambda *_, **__: pytest.fail("computed twice"))
    again = likeness.likeness_table(families, *digits, classifier, Rows(tmp_path / "rows.jsonl"), **FEW).set_index(
        "family"
    )
    assert table.equals(again)


def test_quality_tells_real_images_gaussians_and_copies_apart(digits, classifier):
    models = family("clean", digits, 0.0)[:1]
    table = quality_table(models, *digits, classifier, count=200)
    frechet = table["value"].isel(measure=0)
    assert "digits classifier features" in str(table["measure"].values[0])
    assert (
        float(frechet.sel(row="training images"))
        < float(frechet.sel(row="Gaussian denoiser"))
        < float(frechet.sel(row="data mean"))
    )
    assert int(table["covered"].sel(row="training images")) == 10
    assert int(table["covered"].sel(row="data mean")) == 1
    assert (table["low"] <= table["value"]).all()


def test_small_families_and_foreign_files_are_refused(digits, classifier, tmp_path):
    with pytest.raises(UserError, match="three or more"):
        likeness.likeness_table(
            {"one": family("a", digits, 0.0)[:2]}, *digits, classifier, Rows(tmp_path / "r.jsonl"), **FEW
        )
    (tmp_path / "bad.jsonl").write_text("hello\n")
    with pytest.raises(StoreError, match=r"bad\.jsonl"):
        Rows(tmp_path / "bad.jsonl")


def test_a_classifier_is_trained_once(tmp_path, monkeypatch):
    digits, store = load_images("digits"), Store(tmp_path)
    first = set_classifier(digits, store, steps=20)
    monkeypatch.setattr(
        "consistency_lab.studies.quality.train_classifier", lambda *_, **__: pytest.fail("trained twice")
    )
    x = digits.all()[:5]
    assert torch.equal(first.features(x), set_classifier(digits, store, steps=20).features(x))


def test_a_fleet_is_trained_in_processes_and_once(digits, tmp_path):
    jobs = {
        f"m{s}": TrainingSettings.of(network="mlp(width=8, depth=1)", steps=5, batch=16, seed=s, snapshots=0)
        for s in range(3)
    }
    told: list[str] = []
    fleet = train_fleet(digits[0], jobs, Store(tmp_path), workers=2, say=told.append)
    assert list(fleet) == ["m0", "m1", "m2"]
    assert len(told) == 3
    assert train_fleet(digits[0], jobs, Store(tmp_path), workers=2, say=told.append)["m1"].facts == fleet["m1"].facts
    assert len(told) == 3
    alone = train_fleet(digits[0], {"m0": jobs["m0"]}, Store(tmp_path / "alone"))
    parameters = [torch.cat([p.flatten() for p in f["m0"].denoiser.parameters()]).detach() for f in (fleet, alone)]
    assert np.allclose(*parameters, atol=1e-5)
    with pytest.raises(UserError, match="at least one worker"):
        train_fleet(digits[0], jobs, Store(tmp_path), workers=0)
