from contextlib import nullcontext

import pytest
import torch
from pretended_device import DEVICE, pretended_device

from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.networks.unet import AttentionBlock, Downsample, UNet


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_whole_network_runs_in_the_layout_of_its_device(elsewhere):
    """Channels last on the CPU; on a GPU, where group norm knows whole channels alone, these."""
    with pretended_device() if elsewhere else nullcontext():
        network = UNet((3, 8, 8), middle_attention=not elsewhere)  # its answer is a view of pixels side by side
        x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
        here = network(x, t)
        if elsewhere:
            network, x, t = network.to(DEVICE), x.to(DEVICE), t.to(DEVICE)
        _in_one_layout(network, x, t, torch.contiguous_format if elsewhere else torch.channels_last)
        back = network.to("cpu")
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in back.parameters() if p.dim() == 4)
        assert torch.equal(back(x.cpu(), t.cpu()), here)


def _in_one_layout(network, x, t, layout):
    layouts = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: layouts.append(output.is_contiguous(memory_format=layout))
            )
    network(x, t)
    assert len(layouts) > 10
    assert all(layouts)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"middle_attention": False}, 0),
        ({}, 1),
        ({"attention": (1,)}, 1 + 1 + 2),
        ({"attention": (0, 1), "attention_up": (0,), "blocks": 2}, 1 + 4 + 3),
    ],
)
def test_attention_sits_where_it_was_asked_for(options, count):
    network = UNet((1, 8, 8), **options)
    assert sum(isinstance(module, AttentionBlock) for module in network.modules()) == count


def test_attention_sees_the_whole_image_and_convolutions_only_their_surroundings():
    def reach(**options):
        torch.manual_seed(0)
        network = UNet((1, 32, 32), multipliers=(1,), **options).double()
        torch.nn.init.normal_(network.conv_out.weight)
        # Group norms see the whole image as well; without them what is left is the receptive field.
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda h: h
        x = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
        network(x, torch.rand(1, dtype=torch.float64))[0, 0, 0, 0].backward()
        return x.grad[0, 0, -1, -1].abs().item()

    assert reach(middle_attention=False) == 0
    assert reach(middle_attention=True) > 0


@pytest.mark.parametrize("symmetric", [True, False])
def test_downsampling_halves_and_pads_as_said(symmetric):
    step = Downsample(1, symmetric)
    with torch.no_grad():
        step.conv.weight.zero_()
        step.conv.weight[0, 0, 0, 0] = 1
        step.conv.bias.zero_()
        out = step(torch.arange(1.0, 17).view(1, 1, 4, 4))
    expected = [[0, 0], [0, 6]] if symmetric else [[1, 3], [9, 11]]
    assert out[0, 0].tolist() == expected


def test_one_level_takes_any_size_and_three_take_multiples_of_four():
    assert build_network("unet(multipliers=(1,))", (1, 7, 5))(torch.randn(1, 1, 7, 5), torch.rand(1)).shape == (
        1,
        1,
        7,
        5,
    )
    with pytest.raises(UserError, match="halves them 2 times, so height and width must be multiples of 4"):
        build_network("unet(multipliers=(1, 2, 2))", (1, 30, 30))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("unet(multipliers=())", "at least one level"),
        ("unet(groups=3)", "16 channels cannot be split into 3 groups"),
        ("unet(attention=(2,))", "level 2, but the levels are 0 to 1"),
        ("unet(attention_up=(-1,))", "level -1"),
        ("unet(attention=1)", r"attention=1 is not a list; write attention=\(1,\)"),
        ("unet(head_width=5)", "heads of 5"),
        ("unet(multipliers=(1, 0))", "0 channels"),
    ],
)
def test_options_that_do_not_fit_together(choice, message):
    with pytest.raises(UserError, match=message):
        build_network(choice, (1, 8, 8))
