import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.networks.dit import DiT, DiTBlock
from consistency_lab.networks.registry import build_network


def test_a_block_starts_as_the_identity():
    tokens = torch.randn(2, 5, 16)
    assert torch.equal(DiTBlock(16, 2)(tokens, torch.randn(2, 16)), tokens)


def test_patch_size_sets_the_number_of_tokens():
    assert DiT((1, 8, 8), patch=1).positions.shape == (64, 64)
    assert DiT((1, 8, 8), patch=4).positions.shape == (4, 64)


def test_positions_are_computed_and_not_stored():
    assert "positions" not in DiT((1, 8, 8)).state_dict()


def test_image_sizes_that_do_not_fit_the_patches():
    with pytest.raises(UserError, match="multiples of 8"):
        build_network("dit(patch=8)", (1, 28, 28))


def test_dit_s2_is_the_same_class_with_the_papers_sizes():
    network = build_network("dit-s2(depth=1)", (3, 32, 32))
    assert isinstance(network, DiT)
    assert network.positions.shape == (256, 384)
    assert network.blocks[0].attention.heads == 6
