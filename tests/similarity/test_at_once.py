"""Small models of one architecture are sampled at once where that is faster, and make the images that each makes by itself."""

import numpy as np
import pytest
import torch

import consistency_lab as cl
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.similarity import at_once
from consistency_lab.similarity.at_once import sampled_at_once, stacked
from consistency_lab.store.results import provenance
from consistency_lab.training.train import build_denoiser, training_spec


def model(name, seed=0, network="mlp(width=16, depth=1)", **changes):
    settings = cl.TrainingSettings(network=network, seed=seed, **changes)
    denoiser = build_denoiser(training_spec(cl.load_images("digits"), settings, torch.device("cpu")))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # an untrained network ends in zeros
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return DiffusionModel(name, denoiser.eval(), classes=10 if settings.conditional else 0)


@pytest.fixture
def small(monkeypatch):
    """Whatever the device: a processor's models count as a GPU's."""
    monkeypatch.setattr(at_once, "_small", lambda model: type(model.denoiser) is cl.NetworkDenoiser)


def test_models_on_a_processor_and_large_ones_are_sampled_by_themselves():
    assert sampled_at_once([model("a"), model("b", 1)]) == []


def test_groups_are_of_one_architecture_schedule_and_prediction(small):
    models = [
        model("a"),
        model("b", 1),
        model("wide", network="mlp(width=24, depth=1)"),
        model("v", predicts="v"),
        model("cosine", schedule="cosine"),
        model("c", 2),
        model("asked", conditional=True),
        model("v too", 1, predicts="v"),
    ]
    assert [[each.name for each in group] for group in sampled_at_once(models)] == [["a", "b", "c"], ["v", "v too"]]


@pytest.mark.parametrize("sampler", ["ddim(steps=3)", "ancestral(steps=3)"])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_comparison_is_the_same_to_rounding_and_says_who_was_sampled_at_once(monkeypatch, sampler, conditional):
    models = [model(name, k, conditional=conditional) for k, name in enumerate("abc")]
    models.append(model("other", 5, network="mlp(width=24, depth=1)", conditional=conditional))
    options = {"count": 12, "sampler": sampler, "levels": 3, "shown": 2}
    alone = cl.compare(models, **options)
    monkeypatch.setattr(at_once, "_small", lambda model: True)
    together = cl.compare(models, **options)
    for name in ("distance", "null", "ceiling", "score"):
        np.testing.assert_allclose(together[name].values, alone[name].values, rtol=2e-4, atol=1e-6)
    assert provenance(together)["sampled_at_once"] == [["a", "b", "c"]]
    assert "sampled_at_once" not in provenance(alone)


def test_stacked_models_leave_their_own_weights_where_they_are(small):
    models = [model("a"), model("b", 1)]
    before = [p.data_ptr() for each in models for p in each.denoiser.parameters()]
    noise = cl.SharedNoise(0)
    images = [step.x0 for step in stacked(models).path(noise, [0, 1, 2] * 2, "ddim(steps=2)")][-1]
    for each, own in zip(models, images.chunk(2), strict=True):
        expected = [step.x0 for step in each.path(noise, [0, 1, 2], "ddim(steps=2)")][-1]
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
    assert before == [p.data_ptr() for each in models for p in each.denoiser.parameters()]
