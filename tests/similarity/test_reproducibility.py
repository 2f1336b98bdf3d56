import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.interop.generator import wrap_generator
from consistency_lab.metrics.copy_detection import CopyDistance, sscd
from consistency_lab.similarity import reproducibility as module
from consistency_lab.similarity.reproducibility import measure_reproducibility
from consistency_lab.similarity.statistics import pairs_of

SHAPE = (1, 4, 4)


def pixels(images):
    return images.flatten(1)


def flat(images, value):
    """Images whose every pixel is 0 but the one of that number."""
    return F.one_hot(value.long(), 16).float().view(len(images), *SHAPE) - 1e-9


class Constructed:
    """A model whose image i is one of sixteen orthogonal images: a copy of another model's, or nothing like it."""

    def __init__(self, name, which):
        self.name, self.which, self.noise_shape, self.facts = name, which, SHAPE, {}

    def generate(self, noise, indices):
        return flat(indices, torch.tensor([self.which(i) for i in indices]))


def test_shares_of_constructed_models_are_known():
    # 12 samples; b agrees with a on the first 9. No two samples of one model are alike.
    a = Constructed("a", lambda i: i)
    b = Constructed("b", lambda i: i if i < 9 else 12 + i % 3)
    training = ImageSet("ones", flat(range(4), torch.tensor([0, 1, 2, 13])))
    found = measure_reproducibility([a, b], pixels, training, count=12).sel(threshold=0.6)
    assert found["rp"].item() == pytest.approx(9 / 12)
    assert found["rp_low"] < found["rp"] < found["rp_high"]
    assert found["null_rp"].item() == 0
    assert found["gl"].values.tolist() == pytest.approx([9 / 12, 8 / 12])  # a copies 0, 1, 2; b 13 as well
    assert found["training_gl"].item() == 1
    assert found["nearest"].sel(model="b").values[[0, 1, 2, 10]].tolist() == [0, 1, 2, 3]
    assert json.loads(found.attrs["warnings"]) == []
    assert "pixels" in found.attrs["note"]


def test_models_that_ignore_the_noise_are_told_by_the_null():
    a, b = (Constructed(name, lambda i: 3) for name in "ab")
    found = measure_reproducibility([a, b], pixels, count=10)
    assert (found["rp"] == 1).all()
    assert (found["null_rp"] == 1).all()
    (said,) = json.loads(found.attrs["warnings"])
    assert "100% of images from other noise count as copies at 0.6" in said
    assert "gl" not in found


def test_a_training_set_of_copies_makes_no_memoriser():
    training = ImageSet("twins", flat(range(8), torch.arange(8) // 2))
    found = measure_reproducibility([Constructed(n, lambda i: i) for n in "ab"], pixels, training, count=8)
    assert (found["training_gl"] == 0).all()
    assert "copies of other training images" in found.attrs["warnings"]


def noisy(name, strength, seed):
    mixed = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) / 4

    def generate(noise):
        return (noise + strength * (noise.flatten(1) @ mixed).view_as(noise)).clamp(-3, 3) / 3

    return wrap_generator(generate, shape=SHAPE, name=name)


@pytest.fixture(scope="module")
def three():
    return [noisy(f"m{seed}", 0.9, seed) for seed in range(3)]


def test_the_null_is_that_of_all_other_pairs_in_any_chunks(three, monkeypatch):
    found = measure_reproducibility(three, pixels, count=20, thresholds=(0.1, 0.3))
    a, b = (F.normalize(m.generate(SharedNoise(0), range(20)).flatten(1).double(), dim=1) for m in three[:2])
    cosines = a @ b.T
    others = cosines[~torch.eye(20, dtype=torch.bool)]
    assert found["null_rp"].isel(pair=0).values == pytest.approx(
        [float((others > t).double().mean()) for t in (0.1, 0.3, 0.6)]
    )
    assert found["similarity"].isel(pair=0).values == pytest.approx(cosines.diagonal().numpy(), abs=1e-6)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert (
        measure_reproducibility(three, pixels, count=20, thresholds=(0.1, 0.3))
        .drop_attrs()
        .identical(found.drop_attrs())
    )


def test_a_family_is_the_mean_over_pairs_in_any_order_and_never_certain(three):
    found, other = (measure_reproducibility(models, pixels, count=30) for models in (three, three[::-1]))
    assert found["family_rp"].values == pytest.approx(found["rp"].mean("pair").values)
    for end in ("", "_low", "_high"):
        assert found[f"family_rp{end}"].values == pytest.approx(other[f"family_rp{end}"].values)
    same = measure_reproducibility([Constructed(n, lambda i: i) for n in "abc"], pixels, count=12)
    assert (same["family_rp"] == 1).all()
    assert same["family_rp_low"].values == pytest.approx(same["rp_low"].values[0])  # Wilson's
    assert (same["family_rp_high"] == 1).all()
    assert "over models like these 3" in same.attrs["family_interval"]


def test_an_embedding_is_a_file_a_function_or_a_distance(three, tmp_path):
    class Tiny(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean([2]).flatten(1)

    file = tmp_path / "sscd_tiny.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Tiny()).save(str(file))
    with pytest.raises(UserError, match="a program that may read and write"):
        measure_reproducibility(three[:2], file, count=4)
    found = measure_reproducibility(three[:2], sscd(path=file, trust=True), count=4)
    assert json.loads(found.attrs["provenance"])["embedding"] == "sscd_tiny"
    assert "320x320" in found.attrs["note"]
    named = measure_reproducibility(three[:2], CopyDistance(pixels, "mine"), count=4)
    assert named.drop_attrs().identical(measure_reproducibility(three[:2], pixels, count=4).drop_attrs())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("one", pixels), {}, "two models and two samples or more, not of 1"),
        (("two", pixels), {"count": 1}, "not of 2 and 1"),
        (("two", 3), {}, "a TorchScript file or a function from images to features, not a int"),
        (("two", "none.pt"), {}, "there is no file none.pt"),
        (("two", pixels), {"thresholds": (1.0,)}, "from -1 to below 1"),
        (("two", pixels, "digits"), {}, "images are given as an image set"),
        (("two", lambda x: x), {"count": 4}, "must be finite and of shape"),
    ],
)
def test_bad_input_is_one_sentence(arguments, options, message, three):
    models = three[:1] if arguments[0] == "one" else three[:2]
    with pytest.raises(UserError, match=message):
        measure_reproducibility(models, *arguments[1:], **options)


def test_a_threshold_of_zhang_et_al_is_always_there(three):
    found = measure_reproducibility(three, pixels, count=4, thresholds=(0.2,))
    assert found["threshold"].values.tolist() == [0.2, 0.6]
    assert np.isfinite(found["family_rp_low"]).all()


def test_conditional_models_are_asked_for_the_same_labels_and_their_null_is_within_them():
    class Labelled(DiffusionModel):
        def generate(self, noise, indices, sampler=None, labels=None):
            return flat(indices, self.labels(indices, labels))

    def model(name, classes):
        return Labelled(name, ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("linear")), classes=classes)

    a, b = model("a", 4), model("b", 4)
    found = measure_reproducibility([a, b], pixels, count=8)
    assert (found["rp"] == 1).all()
    assert (found["null_rp"] == 1).all()  # the label decides everything: other noise under it gives the same image
    assert json.loads(found.attrs["provenance"])["labels"] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="know different numbers of labels"):
        measure_reproducibility([a, model("c", 3)], pixels, count=8)


def test_samples_that_exploded_are_named(three):
    loud = wrap_generator(lambda noise: 2 * noise, shape=SHAPE, name="loud")
    found = measure_reproducibility([three[0], loud], pixels, count=10)
    assert found["outside"].sel(model="loud") > 0.3
    assert found["outside"].sel(model="m0") == 0
    (said,) = json.loads(found.attrs["warnings"])
    assert said.startswith("loud: ")


def test_a_sampler_that_draws_noise_is_warned_of_and_recorded():
    denoiser = ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("linear"))
    models = [DiffusionModel(name, denoiser) for name in "ab"]
    found = measure_reproducibility(models, lambda x: x.flatten(1) + 1, count=4, sampler="ancestral(steps=2)")
    assert json.loads(found.attrs["provenance"])["sampler"]["method"] == "ancestral"
    assert "defined for deterministic samplers" in found.attrs["warnings"]


@pytest.mark.parametrize(("threshold", "truth"), [(0.0, 0.5), (2.0, 0.897), (-2.0, 0.103)])
def test_the_interval_of_a_family_covers_the_truth(threshold, truth):
    # Distances of pairs: of four models (.5 each), of the noise (1) and of neither (1); a copy is one below the threshold.
    generator, hits = np.random.default_rng(0), 0
    first, second = zip(*pairs_of(4), strict=True)
    for _ in range(100):
        own, noise, rest = (
            generator.normal(0, 0.5, (4, 1)),
            generator.normal(0, 1, 128),
            generator.normal(0, 1, (4, 128)),
        )
        distance = own[[first]] + own[[second]] + noise + (rest[[first]] - rest[[second]]) / 2**0.5
        found = module._family(distance.reshape(6, 128, 1) < threshold, 4)
        assert found.low <= found.estimate <= found.high
        hits += bool(found.low[0] <= truth <= found.high[0])
    assert hits >= 88  # 95 of 100 expected, three deviations below
