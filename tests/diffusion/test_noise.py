import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise, standard_normal
from consistency_lab.errors import UserError
from consistency_lab.training.train import train

SHAPE = (1, 4, 4)


def test_golden_values():
    # The noise of every published number: a change here is a change of all of them.
    noise = SharedNoise(0).initial([0, 1], (1, 1, 3)).flatten().tolist()
    assert noise == pytest.approx(GOLDEN, abs=0)
    assert SharedNoise(2**40).draw([5], (1, 1, 2), stream="path", step=3).flatten().tolist() == pytest.approx(
        GOLDEN_PATH, abs=0
    )


GOLDEN = [
    0.15853384137153625,
    2.982879400253296,
    -1.9256919622421265,
    0.00537724606692791,
    -0.6427663564682007,
    -0.8871989250183105,
]
GOLDEN_PATH = [-0.17442160844802856, 0.04772147536277771]


def test_words_are_philox4x64():
    # The generator written out from its definition (Salmon et al. 2011), against the one that the noise uses.
    mask = 2**64 - 1

    def philox(counter, key):
        counter, key = list(counter), list(key)
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [(high >> 64) ^ counter[1] ^ key[0], high & mask, (low >> 64) ^ counter[3] ^ key[1], low & mask]
            key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
        return counter

    # numpy raises the counter before its first block.
    words = philox([1, 0, 2, 9], [3, 4])
    uniform = (np.array([w >> 11 for w in words], dtype=np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[[0, 2]])), 2 * np.pi * uniform[[1, 3]]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel().astype(np.float32)
    assert np.array_equal(standard_normal(3, 4, 2, 9, 4), expected)


@given(st.permutations(list(range(6))), st.integers(0, 2**64 - 1))
@settings(max_examples=20, deadline=None)
def test_image_i_depends_on_seed_and_i_alone(order, seed):
    noise = SharedNoise(seed)
    whole = noise.initial(range(6), SHAPE)
    assert torch.equal(noise.initial(order, SHAPE), whole[torch.tensor(order)])
    assert torch.equal(torch.cat([noise.initial([i], SHAPE) for i in range(6)]), whole)


def test_seed_and_index_do_not_mix():
    assert not torch.equal(SharedNoise(0).initial([1], SHAPE), SharedNoise(1).initial([0], SHAPE))
    assert not torch.equal(SharedNoise(0).initial([0], SHAPE), SharedNoise(0).draw([0], SHAPE, stream="probe"))
    assert not torch.equal(
        SharedNoise(0).draw([0], SHAPE, stream="path", step=0), SharedNoise(0).draw([0], SHAPE, stream="path", step=1)
    )


def test_another_process_draws_the_same():
    code = "from consistency_lab.diffusion.noise import standard_normal; print(standard_normal(7, 11, 0, 0, 5).tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == standard_normal(7, 11, 0, 0, 5).tobytes().hex()


def test_larger_images_begin_like_smaller_ones_and_nothing_touches_the_global_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert np.array_equal(standard_normal(0, 0, 0, 0, 9)[:5], standard_normal(0, 0, 0, 0, 5))
    assert torch.equal(before, torch.get_rng_state())


def test_values_are_standard_normal():
    values = SharedNoise(3).initial(range(200), (1, 16, 16)).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    images = SharedNoise(3).initial(range(2000), (2,)).numpy()
    assert abs(np.corrcoef(images[:-1, 0], images[1:, 0])[0, 1]) < 0.1  # neighbouring images
    assert abs(np.corrcoef(images[:, 0], images[:, 1])[0, 1]) < 0.1


def test_path_noise_is_one_brownian_motion_for_every_step_count():
    noise = SharedNoise(0)
    fine = [noise.increment([0, 1], SHAPE, (k + 1) / 8, k / 8) for k in range(8)]
    coarse = noise.increment([0, 1], SHAPE, 0.5, 0.25)
    assert torch.allclose(coarse, (fine[2] + fine[3]) / 2**0.5, atol=1e-6)
    values = noise.increment(range(500), SHAPE, 0.3, 0.1).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "0"])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(UserError, match="seed"):
        SharedNoise(seed)


def test_large_seeds_and_indices_are_themselves():
    # 2^64 - 1 used to be seed 0, and 2^63 + 1 used to be 2^63.
    seeds = [0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    draws = [float(SharedNoise(seed).initial([i], (1,))) for seed in seeds for i in seeds]
    assert len(set(draws)) == len(draws)
    assert torch.equal(SharedNoise(np.uint64(5)).initial(np.arange(3), SHAPE), SharedNoise(5).initial(range(3), SHAPE))


def test_impossible_requests_are_refused():
    with pytest.raises(UserError, match=r"indices of shared noise is a whole number, not 1\.5"):
        SharedNoise(0).initial([1.5], SHAPE)
    with pytest.raises(UserError, match="indices"):
        SharedNoise(0).initial([-1], SHAPE)
    with pytest.raises(UserError, match="at most 1000"):
        SharedNoise(0).increment([0], SHAPE, 0.5, 0.5001)


@pytest.mark.parametrize("sampler", ["ddim(steps=2)", "ancestral(steps=2)"])
def test_the_callers_defaults_change_neither_noise_nor_images(sampler):
    """As `torch.set_default_device("cuda")` in a notebook."""
    images = load_images("digits")
    told = {"network": "mlp(width=16, depth=1)", "steps": 1, "batch": 8, "device": "cpu", "conditional": True}
    model = train(images, **told)

    def made():
        noise = SharedNoise(0)
        walked = [step.x_t for step in model.path(noise, [0, 1], sampler)]
        return [
            noise.initial([1, 2], (1, 8, 8)),
            noise.draw([1, 2], (1, 8, 8), stream="probe"),
            noise.increment([1, 2], (1, 8, 8), 0.5, 0.7),
            model.generate(noise, [0, 1], sampler),
            *walked,
        ]

    expected = made()
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        found = made()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.device == other.device
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
