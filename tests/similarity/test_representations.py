import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.similarity.representations import capture, compare_representations, layer_names, linear_cka
from consistency_lab.training.train import train


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(200), "some digits")


@pytest.fixture(scope="module")
def pair(digits):
    return [train(digits, network="mlp(width=32, depth=2)", steps=60, batch=50, seed=seed) for seed in (0, 1)]


def rows(n, f, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_does_not_see_rotation_scale_or_offset():
    x = rows(100, 20)
    rotation, _ = torch.linalg.qr(rows(20, 20, 1))
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, rows(100, 30, 2)) == pytest.approx(0.0, abs=0.1)
    assert linear_cka(rows(20, 500), rows(20, 500, 3)) == pytest.approx(
        0.0, abs=0.1
    )  # the biased estimator gives nearly 1 here
    assert torch.isnan(torch.tensor(linear_cka(x, torch.zeros(100, 3))))


def test_cka_is_its_definition_by_brute_force():
    x, y = rows(7, 3), rows(7, 4, 1)

    def hsic(k, g):
        # Song et al.: the mean over distinct quadruples, written out.
        from itertools import permutations

        n, total = len(k), 0.0
        for i, j, q, r in permutations(range(n), 4):
            total += float(k[i, j] * (g[i, j] + g[q, r] - 2 * g[i, q]))
        return total / (n * (n - 1) * (n - 2) * (n - 3))

    k, g = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(hsic(k, g) / (hsic(k, k) * hsic(g, g)) ** 0.5, rel=1e-9)


def test_captured_layers_are_what_the_network_computes(pair, digits):
    model = pair[0]
    names = layer_names(model, ["network.*"])
    linear = next(n for n in names if isinstance(dict(model.denoiser.named_modules())[n], torch.nn.Linear))
    activations = capture(model, [linear], 0.4, digits, count=50)[linear]
    assert activations.shape[0] == 50
    assert torch.allclose(activations[:10], capture(model, [linear], 0.4, digits, count=10)[linear], atol=1e-5)
    assert not any(m._forward_hooks for m in model.denoiser.modules())


def test_a_model_agrees_with_itself_and_more_with_its_twin_than_with_strangers(pair, digits):
    a, b = pair
    last = layer_names(a, ["network.*"])[-1]
    own = compare_representations(a, a, [last], digits, times=(0.2, 0.6), count=100)
    assert (own["cka"] > 0.999999).all()
    other = compare_representations(a, b, {last: last}, digits, times=(0.2, 0.6), count=100)
    assert (other["cka"] > other["null"]).all()
    assert (abs(other["null"]) < 0.2).all()


def test_layers_that_cannot_be_captured_are_refused(pair, digits):
    with pytest.raises(UserError, match="unknown layer"):
        capture(pair[0], ["network.nothing"], 0.4, digits, count=50)
    with pytest.raises(UserError, match="choose between 1"):
        capture(pair[0], ["network"], 0.4, digits, count=1000)
    with pytest.raises(UserError, match="at least 4"):
        linear_cka(rows(3, 2), rows(3, 2))
