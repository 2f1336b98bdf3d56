import torch

from consistency_lab.networks.mlp import MLP
from consistency_lab.networks.registry import build_network


def test_any_image_size_will_do():
    x = torch.randn(2, 3, 5, 7)
    assert build_network("mlp(width=16, depth=1)", (3, 5, 7))(x, torch.rand(2)).shape == x.shape


def test_it_knows_nothing_of_space():
    """Shuffling the pixels and the first and last layers alike changes nothing: no pixel is a neighbour of another."""
    network, twin = (MLP((1, 4, 4), width=32, depth=1) for _ in range(2))
    order = torch.randperm(16)
    with torch.no_grad():
        network.linear_out.weight.normal_()
        twin.load_state_dict(network.state_dict())
        twin.linear_in.weight.copy_(network.linear_in.weight[:, order])
        twin.linear_out.weight.copy_(network.linear_out.weight[order])
        x, t = torch.randn(3, 1, 4, 4), torch.rand(3)
        shuffled = x.flatten(1)[:, order].view_as(x)
        expected = network(x, t).flatten(1)[:, order].view_as(x)
        torch.testing.assert_close(twin(shuffled, t), expected, rtol=1e-4, atol=1e-5)
        assert (network(shuffled, t) - expected).abs().max() > 0.1
