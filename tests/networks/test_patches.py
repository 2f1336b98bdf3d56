import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.networks.patches import Patches, grid_positions


def test_patches_round_trip_and_hold_the_right_pixels():
    patches = Patches((3, 4, 6), 2)
    x = torch.randn(2, 3, 4, 6)
    tokens = patches.cut(x)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(patches.join(tokens), x)
    assert torch.equal(tokens[:, 1], x[:, :, 0:2, 2:4].flatten(1))
    assert torch.equal(tokens[:, 3], x[:, :, 2:4, 0:2].flatten(1))


def test_patches_must_tile_the_image():
    with pytest.raises(UserError, match="patches are 4x4, so height and width must be multiples of 4"):
        Patches((1, 8, 6), 4)


def test_positions_separate_rows_and_columns():
    positions = grid_positions(3, 4, 8).view(3, 4, 8)
    assert torch.equal(positions[0, :, :4], positions[0, :1, :4].expand(4, 4))
    assert torch.equal(positions[:, 0, 4:], positions[:1, 0, 4:].expand(3, 4))
    assert torch.cdist(positions.view(12, 8), positions.view(12, 8)).fill_diagonal_(1).min() > 0.1
    torch.testing.assert_close(positions[2, 3, 0], torch.tensor(2.0).sin())
    torch.testing.assert_close(positions[2, 3, 4], torch.tensor(3.0).sin())


def test_width_must_hold_two_coordinates():
    with pytest.raises(UserError, match="multiple of 4"):
        grid_positions(2, 2, 10)
