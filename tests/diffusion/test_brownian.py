import numpy as np
import pytest
import torch

from consistency_lab.diffusion.brownian import CELLS, BrownianPath
from consistency_lab.diffusion.noise import SharedNoise

CORNERS = [0, 1, 2, 3, 10, 99, 100, 101, 250, 333, 500, 501, 640, 999, 1000]


def path(draws=4000, seed=0):
    """One path of each of many noises, and how often a normal was asked for."""
    asked = []

    def normals(key):
        asked.append(key)
        return torch.randn(draws, generator=torch.Generator().manual_seed(seed * 10_000 + key), dtype=torch.float64)

    return BrownianPath(normals), asked


def test_covariance_is_that_of_brownian_motion():
    # Cov W(s), W(t) = min(s, t). The standard error of an entry is at most sqrt(2 s t / n).
    values = np.stack([path()[0].at(cell).expand(4000).numpy() for cell in CORNERS])
    found, expected = np.cov(values), np.minimum.outer(CORNERS, CORNERS)
    error = np.sqrt((np.outer(CORNERS, CORNERS) + expected**2) / 4000)
    assert (np.abs(found - expected) <= 4.5 * error).all()


@pytest.mark.parametrize("steps", [1000, 125, 40])
def test_increments_are_independent_and_of_one_variance(steps):
    walk, width = path()[0], CELLS // steps
    values = torch.stack([walk.at(cell) * torch.ones(4000, dtype=torch.float64) for cell in range(0, CELLS + 1, width)])
    increments = values.diff(dim=0)[: min(steps, 60)] / width**0.5
    gram = increments @ increments.T / 4000
    assert (gram - torch.eye(len(gram), dtype=torch.float64)).abs().max() < 5.5 / 4000**0.5 * 2**0.5


def test_a_value_does_not_depend_on_what_was_asked_before():
    walk = path(8)[0]
    backwards = [walk.at(cell) for cell in reversed(range(CELLS + 1))][::-1]
    rng = np.random.default_rng(0)
    for cell in [*rng.permutation(CELLS + 1)[:60], 0, CELLS]:
        assert torch.equal(walk.at(int(cell)), backwards[cell])
        assert torch.equal(path(8)[0].at(int(cell)), backwards[cell])


@pytest.mark.parametrize(("steps", "draws"), [(50, 50), (100, 100), (10, 10), (1000, 1000), (20, 60), (25, 50)])
def test_draws_grow_with_the_steps_and_not_with_the_cells(steps, draws):
    walk, asked = path(1)
    for k in reversed(range(steps + 1)):
        walk.at(k * CELLS // steps)
    assert len(asked) == len(set(asked)) <= draws


def test_noise_of_many_models_is_made_once_and_may_be_written_into(monkeypatch):
    made = []
    noise = SharedNoise(3)
    real = SharedNoise._drawn
    monkeypatch.setattr(SharedNoise, "_drawn", lambda self, *key: made.append(key) or real(self, *key))
    for _ in range(3):
        first, step = noise.initial(range(3), (1, 2, 2)), noise.increment(range(3), (1, 2, 2), 1.0, 0.98)
        assert torch.equal(first, SharedNoise(3).initial(range(3), (1, 2, 2)))
        first.zero_(), step.zero_()
    assert torch.equal(
        noise.increment(range(3), (1, 2, 2), 1.0, 0.98), SharedNoise(3).increment(range(3), (1, 2, 2), 1.0, 0.98)
    )
    assert len([key for key in made if key[2] == "initial"]) == 1 + 3


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr("consistency_lab.diffusion.noise._KEPT", 100)
    noise = SharedNoise(0)
    for step in range(5):
        noise.draw([0], (2, 2), stream="probe", step=step)
    assert sum(made.nbytes for made in noise._made.values()) <= 100
    assert noise.initial(range(10), (2, 2)).shape == (10, 2, 2)
    assert sum(made.nbytes for made in noise._made.values()) <= 100
