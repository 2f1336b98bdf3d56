"""What is shared of the noise: models that are linear and the same, of which every score is known."""

import numpy as np
import pytest
import torch

import consistency_lab as cl
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.sampling import SHARED, TwoSeeds, sampling_table
from consistency_lab.studies.fleet import Family

SHAPE = (1, 2, 2)
STEPS = 8


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits")


def linear(spread):
    """A Gaussian denoiser of independent pixels, on a schedule that begins with so little noise that the image remembers it."""
    schedule = SCHEDULES.build("edm(sigma_max=1.0)")
    return GaussianDenoiser(torch.zeros(SHAPE), torch.diag(torch.tensor(spread)), schedule)


def family(denoiser, count=3):
    return Family.of("linear", [DiffusionModel(f"m{k}", denoiser, {}) for k in range(count)])


def table(denoiser, images, folder, count=400, **options):
    protocol = Protocol(metrics=("mse",), count=count, sampler=Sampler(steps=STEPS))
    rows = Rows(folder / "rows.jsonl")
    return sampling_table([family(denoiser)], images, rows, protocol, **options).set_index("shared")


def test_the_first_noise_and_the_path_share_a_linear_models_variance(images, tmp_path):
    """Its image is a sum of a part of each, so that the score of one alone is its share of the variance: here with the other silent."""
    denoiser = linear([2.0, 1.0, 0.5, 0.2])
    found = table(denoiser, images, tmp_path)
    assert list(found.index) == list(SHARED)
    scores = found["mse_score"]
    assert scores["first noise, deterministic"] == scores["first noise and path"] == pytest.approx(1.0)
    model = DiffusionModel("m", denoiser, {})

    class Silent(SharedNoise):
        """The first noise alone."""

        def _drawn(self, numbers, sides, stream, step):
            drawn = super()._drawn(numbers, sides, stream, step)
            return torch.zeros_like(drawn) if stream == "path" else drawn

    sampler = Sampler("ancestral", STEPS)
    alone, both = (model.generate(noise, range(4000), sampler) for noise in (Silent(5), SharedNoise(5)))
    share = float(alone.var(0).sum() / both.var(0).sum())
    assert 0.1 < share < 0.9  # neither is all of it
    for shared, expected in (("first noise alone", share), ("path alone", 1 - share)):
        row = found.loc[shared]
        assert row["mse_score_low"] - 0.03 < expected < row["mse_score_high"] + 0.03
        assert row["mse_score"] == pytest.approx(expected, abs=0.06)
        assert row["mse_distance"] == pytest.approx((1 - row["mse_score"]) * row["mse_null"])
    assert found["method"].tolist() == ["ddim", "ancestral", "ancestral", "ancestral"]


def test_each_seed_moves_its_own_stream_alone():
    noise, first, path = TwoSeeds(1, 2), SharedNoise(1), SharedNoise(2)
    indices = range(3)
    assert torch.equal(noise.initial(indices, SHAPE), first.initial(indices, SHAPE))
    span = (indices, SHAPE, 0.75, 0.5)
    assert torch.equal(noise.increment(*span), path.increment(*span))
    assert not torch.equal(noise.increment(*span), first.increment(*span))
    assert torch.equal(TwoSeeds(1, 1).increment(*span), first.increment(*span))


def test_other_families_and_rows_that_are_there(images, tmp_path):
    calls = []
    first = table(linear([2.0, 1.0, 0.5, 0.2]), images, tmp_path, count=8, say=calls.append)
    assert len(calls) == len(SHARED)

    def none():
        raise AssertionError("a finished row asks for no model")

    stored = Family("linear", ("m0", "m1", "m2"), SHAPE, "model", none)
    protocol = Protocol(metrics=("mse",), count=8, sampler=Sampler(steps=STEPS))
    again = sampling_table([stored], images, Rows(tmp_path / "rows.jsonl"), protocol).set_index("shared")
    assert np.array_equal(again["mse_score"], first["mse_score"])
    gan = Family("gan", ("a", "b", "c"), (8,), "gan", none)
    with pytest.raises(UserError, match="'gan' holds no diffusion models"):
        sampling_table([gan], images, Rows(tmp_path / "rows.jsonl"), protocol)
    constant = ConstantDenoiser(torch.zeros(SHAPE), SCHEDULES.build("linear"))
    found = table(constant, images, tmp_path, count=8)
    assert (found["mse_distance"].iloc[:2] == 0).all()
