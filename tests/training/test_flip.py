"""Random mirror images: what a step sees, that hashes and bits without them stay, that a resume draws the same."""

import json
from pathlib import Path

import pytest
import torch

import consistency_lab as cl
from consistency_lab.contrast.batches import NoisedBatches
from consistency_lab.contrast.gan import GAN_KIND
from consistency_lab.contrast.vae import VAE_KIND
from consistency_lab.store.spec import content_hash
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import settings_of, training_spec

CPU = torch.device("cpu")
TINY = {"network": "mlp(width=16, depth=1)", "steps": 30, "batch": 32}
GREY = cl.ImageSet(
    "grey", torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4).repeat(40, 1, 1, 1), torch.arange(160) % 4
)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


def test_each_image_is_mirrored_or_not_by_seed_and_step(images):
    plain = DenoisingBatches(images, TrainingSettings.of(**TINY), CPU)
    flipped = DenoisingBatches(images, TrainingSettings.of(**TINY, flip=True), CPU)
    mirrored = []
    for step in range(20):
        (x0, *rest), (y0, *others) = plain.batch(step).data, flipped.batch(step).data
        assert all(torch.equal(*pair) for pair in zip(rest, others, strict=True))  # times and noise stay
        same, mirror = ((y0 == x).flatten(1).all(1) for x in (x0, x0.flip(-1)))
        assert (same | mirror).all()
        mirrored.append(mirror & ~same)
    share = torch.stack(mirrored).double()
    assert 0.44 < share.mean() < 0.56  # 640 draws: 0.5 +- 3 sd
    assert not torch.equal(share[0], share[1])
    again = DenoisingBatches(images, TrainingSettings.of(**TINY, flip=True), CPU)
    assert torch.equal(again.batch(7).data[0], flipped.batch(7).data[0])
    order = DenoisingBatches(images, TrainingSettings.of(**TINY, flip=True, noise_seed=5, init_seed=6), CPU)
    assert torch.equal(order.batch(7).data[0], again.batch(7).data[0])  # of the order's seed alone


def test_gans_and_vaes_mirror_the_same_way(images):
    settings = TrainingSettings.of(**TINY, flip=True)
    other = NoisedBatches(images, settings, (4,), 1, CPU)
    assert torch.equal(other.batch(3).data[0], DenoisingBatches(images, settings, CPU).batch(3).data[0])
    assert cl.train_vae(images, steps=2, batch=8, flip=True, device="cpu").facts["spec"]["settings"]["flip"] is True


def test_specs_without_it_are_what_they_were():
    """Hashes of the version before, in which there was no flip."""
    assert content_hash(training_spec(GREY, TrainingSettings(), CPU)).startswith("bd95ac44028e94da")
    edm = TrainingSettings(conditional=True, predicts="edm", weighting="edm")
    assert content_hash(training_spec(GREY, edm, CPU)).startswith("286ceb14ea3251c1")
    assert content_hash(GAN_KIND.spec(GREY, cl.GANSettings(), CPU)).startswith("15b04c78b73275ca")
    assert content_hash(VAE_KIND.spec(GREY, cl.VAESettings(), CPU)).startswith("f7dd50fdb4fab2ef")


def test_the_rows_of_size_sweeps_are_still_found():
    row = json.loads(Path(__file__).parents[2].joinpath("figures/digits/sizes.jsonl").read_text().splitlines()[-1])
    assert set(TrainingSettings().texts) == set(row["spec"]["settings"])


def test_with_it_the_spec_says_so(images):
    spec = training_spec(images, TrainingSettings.of(**TINY, flip=True), CPU)
    assert spec["settings"]["flip"] is True
    assert settings_of(spec).flip
    plain, flipped = (cl.train(images, **TINY, device="cpu", flip=flip) for flip in (False, True))
    assert not torch.equal(weights(plain), weights(flipped))


def test_a_comparison_says_what_its_references_leave_out(images):
    models = [cl.train(images, **TINY, flip=True, seed=seed, device="cpu") for seed in (0, 1)]
    options = {"count": 8, "metrics": ("mse",), "sampler": "ddim(steps=2)"}
    said = cl.compare(models, images=images, **options).attrs["warnings"]
    assert "mlp-s0, mlp-s1: trained with flip=True, so on the mirror images of 'some digits' too" in said
    assert "trained on other images" not in said
    whole = cl.compare(models, images=images.mirrored(), **options).attrs["warnings"]
    assert "flip" not in whole
    assert "trained on other images" not in whole
    assert (
        "trained on other images"
        in cl.compare(models, images=images.take(range(50), "few"), **options).attrs["warnings"]
    )


def test_a_mirrored_set_is_what_a_flipped_run_has_for_data(images):
    both = images.mirrored()
    assert len(both) == 400
    assert torch.equal(both.all()[200:], images.all().flip(-1))
    assert torch.equal(both.labels, images.labels.repeat(2))
    assert torch.equal(both.pixels[:200], images.pixels)
    mean = both.all().mean(0)
    assert torch.allclose(mean, mean.flip(-1), atol=1e-6)
