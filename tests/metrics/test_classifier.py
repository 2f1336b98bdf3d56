import pytest
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.metrics import classifier
from consistency_lab.metrics.classifier import SmallClassifier, classes_covered, train_classifier
from consistency_lab.store.checkpoint import load_tensors, save_tensors


def data(n=300, shape=(1, 8, 8), classes=3, seed=0):
    """Noise around one pattern a class: easy."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, *shape, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(0, classes, (n,), generator=generator)
    return (patterns[labels] * 0.5 + 0.4 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1), labels


@pytest.fixture(scope="module")
def trained():
    return train_classifier(*data(), "patterns", steps=60, batch=32, width=8, length=12)


def test_it_learns_what_is_easy(trained):
    images, labels = data(seed=1)
    right = (trained.predict(images) == labels).double().mean()
    assert right > 0.95
    assert trained.facts["held_out"] == 30
    assert trained.facts["accuracy"] > 0.9


def test_the_accuracy_is_of_images_it_never_saw():
    images, labels = data(n=200)
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(3))]
    memoriser = train_classifier(images, shuffled, "patterns", steps=400, batch=64, width=16, held_out=0.25)
    assert (memoriser.predict(images) == shuffled).double().mean() > 0.7  # most of the training images by heart
    assert memoriser.facts["accuracy"] < 0.6


def test_training_is_a_function_of_its_arguments(trained):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train_classifier(*data(), "patterns", steps=60, batch=32, width=8, length=12)
    assert torch.equal(torch.get_rng_state(), before)
    other = train_classifier(*data(), "patterns", steps=60, batch=32, width=8, length=12, seed=1)
    ours, theirs, others = (network.to_state()[0] for network in (trained, again, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not all(torch.equal(ours[key], others[key]) for key in ours)


def test_features_are_the_penultimate_layer(trained):
    images, _ = data(n=20)
    features = trained.features(images)
    assert features.shape == (20, 12)
    assert features.dtype == torch.float32
    assert torch.allclose(trained.head(features), trained(images), atol=1e-6)
    assert trained.feature_name == "patterns classifier features"
    assert not features.requires_grad


def test_batches_order_and_overshoot_change_nothing(trained, monkeypatch):
    images, _ = data(n=30)
    whole = trained.features(images)
    assert torch.allclose(trained.features(images.flip(0)).flip(0), whole, atol=1e-6)
    monkeypatch.setattr(classifier, "_ROWS", 7)
    assert torch.allclose(trained.features(images), whole, atol=1e-6)
    assert torch.equal(trained.features(3 * images), trained.features((3 * images).clamp(-1, 1)))


def test_it_comes_back_from_a_file(trained, tmp_path):
    save_tensors(tmp_path / "classifier.safetensors", *trained.to_state())
    again = SmallClassifier.from_state(*load_tensors(tmp_path / "classifier.safetensors"))
    images, _ = data(n=20)
    assert torch.equal(again.features(images), trained.features(images))
    assert again.facts == trained.facts
    assert again.feature_name == trained.feature_name
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_other_files_are_refused(trained):
    tensors, metadata = trained.to_state()
    for wrong in ((tensors, {}), ({}, metadata), ({**tensors, "head.bias": torch.zeros(7)}, metadata)):
        with pytest.raises(UserError, match="no small classifier"):
            SmallClassifier.from_state(*wrong)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 28, 28), (3, 32, 20), (1, 1, 1), (3, 64, 64)])
def test_images_of_any_size(shape):
    network = SmallClassifier(shape, 10, "any", width=2)
    images = torch.zeros(2, *shape)
    assert network(images).shape == (2, 10)
    assert network.features(images).shape == (2, 64)
    assert next(m for m in network.body if isinstance(m, nn.Linear)).in_features <= 8 * 7 * 13


def test_bad_training_sets():
    images, labels = data(n=40)
    for wrong in (labels[:-1], torch.zeros_like(labels), labels.int(), labels - 1):
        with pytest.raises(UserError, match="one label"):
            train_classifier(images, wrong, "patterns")
    with pytest.raises(UserError, match=r"images of patterns .*looks like \[0, 1\]"):
        train_classifier((images + 1) / 2, labels, "patterns")
    for options in ({"steps": 0}, {"batch": 0}, {"held_out": 0.0}, {"held_out": 0.999}, {"held_out": 1.5}):
        with pytest.raises(UserError, match="leaves images on both sides"):
            train_classifier(images, labels, "patterns", **options)


def test_bad_images(trained):
    with pytest.raises(UserError, match=r"reads images of \(1, 8, 8\), not \(3, 8, 8\)"):
        trained.features(torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="not finite"):
        trained.features(torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(UserError, match="2 classes"):
        SmallClassifier((1, 8, 8), 1, "one")


def test_classes_covered():
    labels = torch.tensor([0] * 50 + [1] * 48 + [2])
    assert classes_covered(labels, 4) == 2  # one image of 99 is less than a tenth of a quarter
    assert classes_covered(labels, 4, least=0.01) == 3
    assert classes_covered(torch.arange(10), 10) == 10
    assert classes_covered(torch.empty(0, dtype=torch.long), 10) == 0
