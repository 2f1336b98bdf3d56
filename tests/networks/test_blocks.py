import math

import pytest
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import SelfAttention, TimeEmbedding, require_multiple, timestep_features, zeroed


def test_features_are_waves_of_the_timestep_index():
    t = torch.tensor([0.001, 0.25, 1.0], dtype=torch.float64)
    waves = timestep_features(t, 6, shift=1.0)
    for row, index in zip(waves, [0, 249, 999], strict=True):
        angles = [index, index / 100, index / 10_000]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_cosines_come_first_on_request():
    t = torch.rand(5)
    sines_first, cosines_first = timestep_features(t, 8), timestep_features(t, 8, cos_first=True)
    assert torch.equal(sines_first.roll(4, dims=1), cosines_first)


def test_features_are_at_least_float32():
    assert timestep_features(torch.rand(2), 4).dtype == torch.float32
    assert timestep_features(torch.rand(2, dtype=torch.float64), 4).dtype == torch.float64
    assert timestep_features(torch.rand(2).bfloat16(), 4).dtype == torch.float32


def test_embedding_is_time_plus_label():
    embedding = TimeEmbedding(8, 16, classes=3)
    t, cond = torch.rand(4), torch.tensor([0, 1, 2, 3])
    time, label = embedding.parts(t, cond)
    assert torch.equal(embedding(t, cond), time + label)
    assert torch.equal(label, embedding.label.weight)
    assert torch.equal(embedding.parts(t, None)[1], embedding.label.weight[3].expand(4, 16))


def test_embedding_without_a_row_for_no_label_needs_labels():
    embedding = TimeEmbedding(8, 16, classes=3, null_label=False)
    assert embedding.label.num_embeddings == 3
    with pytest.raises(UserError, match="no row for 'no label'"):
        embedding(torch.rand(2))


@pytest.mark.parametrize(("features", "shift"), [(7, 0.0), (2, 1.0), (0, 0.0)])
def test_features_that_cannot_be_made(features, shift):
    with pytest.raises(UserError, match="even and at least 4"):
        TimeEmbedding(features, 8, shift=shift)


def test_attention_equals_the_formula_and_torch():
    width, heads = 12, 3
    ours = SelfAttention(width, heads)
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    theirs.out_proj = ours.out
    tokens = torch.randn(2, 5, width)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_must_divide_the_width(heads):
    with pytest.raises(UserError, match="heads that divide the width"):
        SelfAttention(12, heads)


def test_zeroed_layers_return_zero():
    assert torch.equal(zeroed(nn.Linear(3, 2))(torch.randn(4, 3)), torch.zeros(4, 2))


def test_a_size_that_does_not_fit_names_those_that_do():
    require_multiple((1, 16, 8), 8, "it is halved 3 times")
    with pytest.raises(UserError, match=r"images of 28x28 .* multiples of 8 .such as 24 or 32.; resize"):
        require_multiple((1, 28, 28), 8, "it is halved 3 times")
    with pytest.raises(UserError, match="such as 8 or 16"):
        require_multiple((1, 8, 4), 8, "it is halved 3 times")
