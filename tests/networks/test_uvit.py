import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.networks.uvit import UViT


def test_time_and_label_are_tokens():
    plain, labelled = UViT((1, 4, 4), width=8, depth=1, heads=2), UViT((1, 4, 4), 3, width=8, depth=1, heads=2)
    assert plain.positions.shape == (1 + 4, 8)
    assert labelled.positions.shape == (2 + 4, 8)
    seen = []
    labelled.middle.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    labelled(torch.randn(2, 1, 4, 4), torch.rand(2), torch.tensor([0, 1]))
    assert seen[0].shape == (2, 6, 8)


def test_each_late_block_merges_its_mirror_image():
    network = UViT((1, 4, 4), width=8, depth=5, heads=2)
    left, merged = [], []
    for block in network.before:
        block.register_forward_hook(lambda module, inputs, output: left.append(output))
    for block in network.after:
        block.register_forward_hook(lambda module, inputs, output: merged.append(inputs[1]))
    network(torch.randn(2, 1, 4, 4), torch.rand(2))
    assert [torch.equal(a, b) for a, b in zip(reversed(left), merged, strict=True)] == [True, True]


def test_depth_must_be_odd():
    with pytest.raises(UserError, match="odd depth, such as 5"):
        build_network("uvit-s(depth=4)", (3, 32, 32))


def test_image_sizes_that_do_not_fit_the_patches():
    with pytest.raises(UserError, match="multiples of 2"):
        build_network("uvit-s", (1, 7, 7))
