import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module
from consistency_lab.intervals import jackknife
from consistency_lab.similarity.representations import (
    _cka,
    _gram,
    capture,
    compare_representations,
    layer_names,
    linear_cka,
)
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
    own = compare_representations([a, a], digits, [last], times=(0.2, 0.6), count=100)
    assert (own["cka"] > 0.999999).all()
    other = compare_representations([a, b], digits, {last: last}, times=(0.2, 0.6), count=100)
    assert (other["cka"] > other["null"]).all()
    assert (abs(other["null"]) < 0.2).all()
    assert ((other["cka_low"] < other["cka"]) & (other["cka"] < other["cka_high"]) & (other["cka_high"] <= 1)).all()
    named = compare_representations([a, b], digits, [last], times=(0.2, 0.6), count=100)
    assert named.drop_attrs().identical(other.drop_attrs())


def test_an_input_left_out_is_cka_without_it():
    x = rows(9, 4)
    y = x @ rows(4, 6, 1) + rows(9, 6, 2)
    found = _cka(_gram(x), _gram(y))
    others = [torch.arange(9) != m for m in range(9)]
    assert found[1:] == pytest.approx([linear_cka(x[kept], y[kept]) for kept in others], abs=1e-12)


def test_the_interval_of_cka_covers_the_truth():
    weights, hits = (rows(10, 20, 1), rows(10, 20, 2)), 0

    def draw(n, seed):
        x = rows(n, 10, seed)
        return [torch.relu(x @ w) + 2 * rows(n, 20, seed + 1000 * k) for k, w in enumerate(weights, 1)]

    truth = linear_cka(*draw(3000, 7))
    for seed in range(100, 200):
        values = _cka(*map(_gram, draw(60, seed)))
        interval = jackknife(values[0], values[1:])
        hits += bool(interval.low <= truth <= interval.high)
    assert hits >= 90


def test_a_layer_that_is_a_rotation_of_its_input_agrees_with_it(digits):
    class Turned(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.turn, self.rest = nn.Linear(64, 64, bias=False), nn.Linear(64, 64)
            self.turn.weight.data = torch.linalg.qr(rows(64, 64, seed))[0].float()

        def forward(self, x, t, cond=None):
            return self.rest(self.turn(x.flatten(1))).view_as(x)

    models = [
        wrap_module(Turned(seed), schedule="linear", predicts="eps", shape=(1, 8, 8), time="unit", name=f"m{seed}")
        for seed in (0, 1)
    ]
    (name,) = (n for n, _ in models[0].denoiser.named_modules() if n.endswith("turn"))
    found = compare_representations(models, digits, [name], times=(0.1, 0.9), count=50)
    for variable in ("cka", "cka_low", "cka_high", "input_cka"):
        assert np.allclose(found[variable], 1, atol=1e-5), variable
    assert (abs(found["null"]) < 0.3).all()


def test_three_models_make_a_family_in_any_order(pair, digits):
    third = train(digits, network="mlp(width=32, depth=2)", steps=60, batch=50, seed=2)
    last = layer_names(pair[0], ["network.*"])[-1]
    one = compare_representations([*pair, third], digits, [last], times=(0.4,), count=40)
    other = compare_representations([third, *pair], digits, [last], times=(0.4,), count=40)
    for end in ("", "_low", "_high"):
        assert np.allclose(one[f"family_cka{end}"], other[f"family_cka{end}"], atol=1e-9)
    assert float(one["family_cka"].squeeze()) == pytest.approx(float(one["cka"].mean("pair").squeeze()))
    assert "over images" in one.attrs["family_interval"]
    assert "family_cka" not in compare_representations(pair, digits, [last], times=(0.4,), count=40)


def test_a_pattern_takes_what_can_be_captured(pair, digits):
    found = compare_representations(pair, digits, times=(0.4,), count=8)
    assert set(found["layer"].values) <= set(layer_names(pair[0]))
    assert (found["cka"].notnull() | (found["null"].isnull())).all()


def test_architectures_without_common_names_need_a_mapping(pair, digits):
    other = train(digits, network="mlp(width=16, depth=1)", steps=2, batch=50)
    with pytest.raises(UserError, match="map the layers of one to those of the other"):
        compare_representations([pair[0], other], digits, times=(0.4,), count=8)
    for models, layers, message in [
        (pair[:1], ["network"], "two models or more"),
        ([*pair, other], {"network": "network"}, "not for 3"),
        (pair, "network", r"write layers=\['network'\]"),
    ]:
        with pytest.raises(UserError, match=message):
            compare_representations(models, digits, layers, count=8)
    with pytest.raises(UserError, match="one noise level or more"):
        compare_representations(pair, digits, times=())
    with pytest.raises(UserError, match="has images of"):
        capture(pair[0], ["network"], 0.4, load_images("gaussian(size=4, count=10)"), count=4)
    with pytest.raises(UserError, match="5 images or more, not 4"):
        compare_representations(pair, digits, count=4)


def test_layers_that_cannot_be_captured_are_refused(pair, digits):
    with pytest.raises(UserError, match="unknown layer"):
        capture(pair[0], ["network.nothing"], 0.4, digits, count=50)
    with pytest.raises(UserError, match="choose between 1"):
        capture(pair[0], ["network"], 0.4, digits, count=1000)
    with pytest.raises(UserError, match="at least 4"):
        linear_cka(rows(3, 2), rows(3, 2))
