from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import StoreError, UserError
from consistency_lab.paper import likeness
from consistency_lab.paper.emergence import emergence_table
from consistency_lab.paper.pairs import every_pair_sentence, pair_table
from consistency_lab.paper.protocol import Classifier, Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.similarity import quality
from consistency_lab.similarity.quality import measure_quality, set_classifier
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import Family, Fleet, train_fleet
from consistency_lab.training.run_io import snapshot_steps
from consistency_lab.training.settings import TrainingSettings

RULER = Protocol(count=12, quality_count=60, sampler=Sampler(steps=6), levels=3)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").split(1400, 397, seed=0)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return set_classifier(load_images("digits"), Store(tmp_path_factory.mktemp("store")), steps=60)


def judged_by(classifier):
    return Classifier("of a test", lambda: classifier)


def family(name, digits, spread, size=3):
    models = []
    for seed in range(size):
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
    models = {
        "clean": family("clean", digits, 0.0, 4),
        "noisy": family("noisy", digits, 0.3, 4),
        "straw": [Straw(f"s{i}") for i in range(3)],
    }
    families = [Family.of(name, each) for name, each in models.items()]
    rows, judge = Rows(tmp_path / "rows.jsonl"), judged_by(classifier)
    table = likeness.likeness_table(families, *digits, rows, RULER, classifier=judge).set_index("family")
    assert list(table.index) == ["clean", "noisy", "straw", "clean | noisy"]  # the straw starts from other noise
    assert table.loc["clean", "mse_score"] > 0.9
    assert (
        table.loc["clean", "mse_score_low"]
        <= table.loc["clean", "mse_score"]
        <= table.loc["clean", "mse_score_high"]
        <= 1
    )
    assert table.loc["clean | noisy", "mse_score"] < table.loc["clean", "mse_score"]
    assert table.loc["straw", "mse_score"] == 1.0
    assert list(table["fit"]) == [True, True, False, None]
    assert table.loc["clean | noisy", "p_any"] == pytest.approx(1 / 35)  # the smallest there is for 4 + 4 models
    assert table.loc["clean | noisy", "assignments"] == 35
    assert table.loc["clean", "frechet_low"] <= table.loc["clean", "frechet"] <= table.loc["clean", "frechet_high"]
    assert table.loc["clean", "curves"] == list(RULER.names)
    assert table.loc["straw", "curves"] == []
    along = table.loc["clean", "mse_along_t"]
    assert len(along["score"]) == len(along["t"]) == 3
    assert along["score"][-1] == table.loc["clean", "mse_score"]
    assert table.loc["clean", "mse_ceiling"] < table.loc["clean", "mse_null"]
    assert (table["outside"].dropna() < 0.2).all()
    # Three families with their quality, one pair of families, and the pairs of two shapes of noise.
    assert len(rows) == 9
    for name in ("protocol.compare", "likeness.measure_quality"):
        monkeypatch.setattr(f"consistency_lab.paper.{name}", lambda *_, **__: pytest.fail("computed twice"))
    again = likeness.likeness_table(families, *digits, Rows(tmp_path / "rows.jsonl"), RULER, classifier=judge)
    again = again.set_index("family")
    assert table.equals(again)


def test_quality_tells_real_images_gaussians_and_copies_apart(digits, classifier):
    models = family("clean", digits, 0.0)[:1]
    table = measure_quality(models, digits[1], classifier, training=digits[0], count=200)
    frechet = table["value"].isel(measure=0)
    assert "digits classifier features" in str(table["measure"].values[0])
    assert (
        float(frechet.sel(row="training images"))
        < float(frechet.sel(row="Gaussian denoiser"))
        < float(frechet.sel(row="data mean"))
    )
    assert int(table["covered"].sel(row="training images")) == 10
    assert int(table["covered"].sel(row="data mean")) == 1
    assert (table["value_low"] <= table["value"]).all()


def test_small_families_and_foreign_files_are_refused(digits, classifier, tmp_path):
    with pytest.raises(UserError, match="three or more"):
        few = [Family.of("one", family("a", digits, 0.0)[:2])]
        likeness.likeness_table(few, *digits, Rows(tmp_path / "r.jsonl"), RULER, classifier=judged_by(classifier))
    (tmp_path / "bad.jsonl").write_text("hello\n")
    with pytest.raises(StoreError, match=r"bad\.jsonl"):
        Rows(tmp_path / "bad.jsonl")


def test_a_classifier_is_trained_once(tmp_path, monkeypatch):
    digits, store = load_images("digits"), Store(tmp_path)
    first = set_classifier(digits, store, steps=20)
    monkeypatch.setattr(
        "consistency_lab.similarity.quality.train_classifier", lambda *_, **__: pytest.fail("trained twice")
    )
    x = digits.all()[:5]
    assert torch.equal(first.features(x), set_classifier(digits, store, steps=20).features(x))


def test_a_classifier_that_is_being_trained_is_waited_for(tmp_path, monkeypatch):
    digits, store = load_images("digits"), Store(tmp_path)
    train, trained, said = quality.train_classifier, [], []
    begun, told = Event(), Event()

    def held_up(*args, **options):
        trained.append(1)
        begun.set()
        assert told.wait(60)
        return train(*args, **options)

    monkeypatch.setattr(quality, "train_classifier", held_up)
    monkeypatch.setattr(quality._logger, "warning", lambda line: (said.append(line), told.set()))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(set_classifier, digits, store, steps=10)
        assert begun.wait(60)
        second = set_classifier(digits, Store(tmp_path), steps=10)
    assert trained == [1]
    assert len(said) == 1
    assert "waiting for the process that holds the run" in said[0]
    x = digits.all()[:5]
    assert torch.equal(first.result().features(x), second.features(x))


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


SMALL = {"steps": 4, "batch": 16}
KINDS = {
    "model": TrainingSettings(network="mlp(width=8, depth=1)", **SMALL),
    "gan": GANSettings(generator="dense(latent=5, width=8)", discriminator="dense(width=8)", **SMALL),
    "vae": VAESettings(autoencoder="conv(latent=6, width=4)", **SMALL),
}
NOISE = {"model": (1, 8, 8), "gan": (5,), "vae": (6,)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_of_any_kind_is_known_before_it_is_trained(digits, tmp_path, kind):
    jobs = {f"{kind}-{seed}": KINDS[kind].replace(seed=seed) for seed in range(2)}
    fleet = Fleet(digits[0], jobs, Store(tmp_path))
    family = fleet.family(kind, list(jobs))
    assert not any(run.done for run in fleet.runs.values())
    assert (family.noise_shape, family.diffusion) == (NOISE[kind], kind == "model")
    models = family.models()
    assert [model.noise_shape for model in models] == [family.noise_shape] * 2
    assert tuple(model.facts["run"] for model in models) == family.identities
    assert Family.of(kind, models).identities == family.identities
    assert family.models()[0] is models[0]


def test_finished_rows_train_nothing(digits, tmp_path, monkeypatch):
    jobs = {f"m{seed}": KINDS["model"].replace(seed=seed) for seed in range(3)}

    def table(store):
        family = Fleet(digits[0], jobs, Store(tmp_path / store)).family("m", list(jobs))
        return likeness.likeness_table([family], *digits, Rows(tmp_path / "rows.jsonl"), RULER)

    first = table("a")
    assert "frechet" not in first  # no classifier was given
    monkeypatch.setattr("consistency_lab.studies.fleet.train_job", lambda *_: pytest.fail("trained again"))
    assert table("b").equals(first)


def test_agreement_is_followed_over_training(digits, tmp_path):
    settings = KINDS["model"].replace(steps=100, snapshots=3)
    jobs = {f"m{seed}": settings.replace(seed=seed) for seed in range(3)}
    fleet = Fleet(digits[0], jobs, Store(tmp_path / "runs"))
    family, steps = fleet.family("m", list(jobs)), snapshot_steps(settings)
    rows = Rows(tmp_path / "rows.jsonl")
    table = emergence_table([family], {"m": steps}, digits[0], rows, RULER)
    assert table["step"].tolist() == steps == [25, 50, 100]
    own = likeness.family_values(family.models(), digits[0], RULER, ceiling=False)
    assert table["mse_score"].iloc[-1] == own["mse_score"]  # the last weights that are kept are the model's own
    with pytest.raises(UserError, match="kept no weights at step 60, but at 25, 50, 100"):
        emergence_table([family], {"m": [60]}, digits[0], rows, RULER)
    with pytest.raises(UserError, match="holds no diffusion models"):
        emergence_table([Family.of("straw", [Straw("s")])], {"straw": [1]}, digits[0], rows, RULER)


def test_a_metric_is_known_by_its_weights_and_not_by_their_path(tmp_path):
    from consistency_lab.metrics.copy_detection import CopyDistance

    metric = CopyDistance(lambda x: x.flatten(1), "copies", note="weights w.pt, SHA-256 0123")
    spec = Protocol(metrics=("mse", metric)).spec
    assert spec["metrics"] == ["mse", "copies (weights w.pt, SHA-256 0123)"]


def test_every_pair_is_named_and_the_extremes_are_said(digits, tmp_path):
    models = {"clean": family("clean", digits, 0.0), "noisy": family("noisy", digits, 0.3)}
    straws = [Straw(f"s{i}") for i in range(3)]
    families = [*(Family.of(name, each) for name, each in models.items()), Family.of("straw", straws)]
    rows = Rows(tmp_path / "rows.jsonl")
    pairs = pair_table(families, digits[0], rows, RULER)
    assert len(pairs) == 15 + 3
    assert pairs["diffusion"].sum() == 15
    outside = float((models["noisy"][0].generate(SharedNoise(0), range(12), RULER.sampler).abs() > 1.5).float().mean())
    assert pairs.set_index("first").loc["noisy-0", "outside"].max() >= outside * 0.999
    whole = RULER.compare([*models["clean"], *models["noisy"]])
    assert pairs["score"][:15].tolist() == whole["score"].isel(t=-1, metric=0).values.tolist()
    sentence = every_pair_sentence(pairs)  # straws always make the same images: they are as alike as can be
    assert "does NOT lie above" in sentence
    assert "the highest of the others 1.000 (s" in sentence
    low = pairs.assign(score=np.where(pairs["diffusion"], pairs["score"], -0.5))
    assert "15 pairs of diffusion models lies above every one of the 3 pairs" in every_pair_sentence(low)
    assert pair_table(families, digits[0], rows, RULER).equals(pairs)
