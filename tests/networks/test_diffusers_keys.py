"""The U-Net beside diffusers' own: same parameters to the bit, same outputs."""

import json

import pytest
import torch

from consistency_lab.choices import Choice
from consistency_lab.errors import UserError
from consistency_lab.networks.diffusers_keys import (
    choice_from_diffusers,
    diffusers_config,
    from_diffusers_state,
    to_diffusers_state,
)
from consistency_lab.networks.registry import build_network

diffusers = pytest.importorskip("diffusers")

INDICES = torch.tensor([0, 37, 507, 999])
OURS = {
    "default": ("unet", (1, 8, 8), 0),
    "ddpm": ("unet-ddpm(width=16, groups=8)", (3, 16, 16), 0),
    "labels": ("unet-ddpm(width=16, groups=8, multipliers=(1, 2))", (3, 8, 16), 5),
    "lopsided": (
        "unet(width=16, multipliers=(1, 2, 1.5), blocks=2, attention=(0, 2), attention_up=(1,), head_width=8,"
        " middle_attention=False, cos_first=True)",
        (2, 8, 8),
        0,
    ),
    "one level": ("unet(multipliers=(1,), attention=(0,))", (1, 6, 6), 3),
}
THEIRS = {
    # 16 and not 8: at 1x1 pixels a group of two values is normalised to +-1, which is so ill-conditioned that diffusers
    # differs from itself by 1e-4 as soon as its memory layout changes.
    "defaults": {"sample_size": 16, "block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
    "labels": {
        "sample_size": (8, 16),
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (16, 24),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_num_groups": 8,
        "attention_head_dim": None,
        "num_class_embeds": 4,
    },
    "no attention": {
        "sample_size": 4,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "norm_eps": 1e-4,
        "add_attention": False,
    },
}


def shaken(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def outputs(ours, theirs, classes):
    x = torch.randn(4, *ours.shape, generator=torch.Generator().manual_seed(2))
    cond = torch.tensor([0, 1, 2, 0]) if classes else None
    with torch.no_grad():
        return ours(x, (INDICES + 1) / 1000, cond), theirs(x, INDICES, class_labels=cond).sample


def assert_same(ours, theirs, classes):
    here, there = outputs(ours, theirs, classes)
    assert there.std() > 0.01
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)


def check_export(choice, shape, classes):
    network = shaken(build_network(choice, shape, classes))
    config = json.loads(json.dumps(diffusers_config(network)))
    theirs = diffusers.UNet2DModel(**config).eval()
    theirs.load_state_dict(to_diffusers_state(network))
    assert_same(network, theirs, classes)

    back = build_network(*choice_from_diffusers(config, null_label=bool(classes)), seed=7)
    back.load_state_dict(from_diffusers_state(back, theirs.state_dict()))
    assert list(back.state_dict()) == list(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(("choice", "shape", "classes"), OURS.values(), ids=OURS)
def test_ours_becomes_theirs_and_comes_back_to_the_bit(choice, shape, classes):
    check_export(choice, shape, classes)


@pytest.mark.slow
def test_the_paper_scale_network_becomes_theirs_and_comes_back_to_the_bit():
    check_export("unet-ddpm", (3, 32, 32), 0)


@pytest.mark.parametrize("config", THEIRS.values(), ids=THEIRS)
def test_theirs_becomes_ours_and_goes_back_to_the_bit(config):
    theirs = shaken(diffusers.UNet2DModel(**config))
    full = dict(theirs.config)
    network = build_network(*choice_from_diffusers(full))
    network.load_state_dict(from_diffusers_state(network, theirs.state_dict()))
    assert_same(network, theirs, config.get("num_class_embeds"))
    # A configuration that leaves the defaults out means the same.
    choice = choice_from_diffusers(config if "in_channels" in config else {**config, "in_channels": 3})
    assert choice == choice_from_diffusers(full)
    state = to_diffusers_state(network)
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    exported = diffusers_config(network)
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        assert list(exported[key]) == list(full[key])


def test_the_default_ddpm_has_the_configuration_of_the_published_checkpoint():
    config = diffusers_config(build_network("unet-ddpm", (3, 32, 32)))
    published = {
        "attention_head_dim": None,
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "layers_per_block": 2,
        "norm_eps": 1e-6,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 32,
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }
    assert {key: config[key] for key in published} == published


def test_attention_names_of_old_checkpoints_are_read():
    network = shaken(build_network("unet(attention=(1,))", (1, 8, 8)))
    old = {}
    for name, tensor in to_diffusers_state(network).items():
        for new, former in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = tensor
    assert old.keys() != to_diffusers_state(network).keys()
    state = from_diffusers_state(network, old)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_architecture_are_named():
    network = build_network("unet", (1, 8, 8))
    state = to_diffusers_state(network)
    with pytest.raises(UserError, match=r"hold 'extra\.weight'"):
        from_diffusers_state(network, {**state, "extra.weight": torch.zeros(1)})
    del state["conv_in.bias"]
    with pytest.raises(UserError, match=r"lack 'conv_in\.bias'"):
        from_diffusers_state(network, state)


@pytest.mark.parametrize(
    "setting",
    [
        {"time_embedding_type": "fourier"},
        {"resnet_time_scale_shift": "scale_shift"},
        {"mid_block_type": None},
        {"mid_block_scale_factor": 2**0.5},
        {"out_channels": 6},
        {"attn_norm_num_groups": 4},
        {"norm_num_groups": None},
        {"time_embedding_dim": 7},
        {"downsample_padding": 2},
        {"class_embed_type": "timestep"},
        {"down_block_types": ["SkipDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_that_cannot_be_represented_are_named(setting):
    with pytest.raises(UserError, match=f"with {next(iter(setting)).replace('attn_norm', '(attn_)?norm')}="):
        choice_from_diffusers({"sample_size": 8, "in_channels": 3, **setting})


def test_the_size_can_be_given_where_the_configuration_leaves_it_open():
    choice, shape, classes = choice_from_diffusers({"sample_size": None}, size=32)
    assert (shape, classes) == ((3, 32, 32), 0)
    assert Choice.parse(str(choice)) == choice
    with pytest.raises(UserError, match="give size"):
        choice_from_diffusers({})
