"""Each library's own trainer, its own file, its own sampler: opened by one address, and the same images from the same noise.

A library that is not installed is skipped; ``pip install denoising-diffusion-pytorch smalldiffusion k-diffusion torchcfm azula ...``
"""

import json

import checkpoints
import pytest
import torch
from checkpoints import SIZE, STEPS, Backbone
from safetensors.torch import save_file

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.interop.families.ddpm_pytorch import unet_options as ddpm_options
from consistency_lab.interop.families.unets import unet_options
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.states import load_state
from consistency_lab.loading import load

NOISE, INDICES = SharedNoise(0), range(4)
# smalldiffusion's steps end at the least of its 100 sigmas; ours goes on from there to 0.
ITS_OWN_TIMES = torch.tensor([1 - i / STEPS for i in range(STEPS)] + [0.01, 0.0], dtype=torch.float64)


def assert_same(model, theirs, *, clip=False, times=None, state=-1):
    """Our DDIM from the same noise ends where their sampler does; within 1e-4 of the largest value, or of 1."""
    sampler = Sampler("ddim", steps=STEPS, clip=clip)
    path = list(model.path(NOISE, INDICES, sampler, times=times))
    expected = theirs.sample(NOISE.initial(INDICES, (1, SIZE, SIZE)).float()).double()
    apart = float((path[state].x_t - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert apart < 1e-4, apart
    return path, expected


OBJECTIVES = [
    ({}, "v"),
    pytest.param({"objective": "pred_noise", "beta_schedule": "cosine"}, "eps", marks=pytest.mark.slow),
    pytest.param(
        {"objective": "pred_x0", "beta_schedule": "linear", "min_snr_loss_weight": True}, "x0", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("told", "predicts"), OBJECTIVES)
def test_denoising_diffusion_pytorch(tmp_path, told, predicts):
    pytest.importorskip("denoising_diffusion_pytorch")
    pytest.importorskip("accelerate")
    theirs = checkpoints.ddpm_pytorch(tmp_path, **told)
    model = load(theirs.address, device="cpu")
    assert model.denoiser.predicts == predicts
    _, images = assert_same(model, theirs, clip=True)  # its DDIM always clips
    assert (images.abs() < 0.99).double().mean() > 0.02
    x = torch.randn(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for i in (0, 3, 50, 98):
        expected = theirs.x0(x, i)
        got = model.denoiser(x, (i + 1) / 100).x0
        torch.testing.assert_close(got / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrap", ["", "PredX0", "PredV", "PredFlow", "DiT"])
def test_smalldiffusion(tmp_path, wrap):
    pytest.importorskip("smalldiffusion")
    kind, wrap = ("DiT", "PredX0") if wrap == "DiT" else ("Unet", wrap)
    theirs = checkpoints.small(tmp_path, kind=kind, wrap=wrap)
    flow = wrap == "PredFlow"
    assert_same(
        load(theirs.address, device="cpu"), theirs, times=None if flow else ITS_OWN_TIMES, state=-1 if flow else -2
    )


def test_ema_pytorch(tmp_path):
    pytest.importorskip("ema_pytorch")
    pytest.importorskip("smalldiffusion")
    theirs = checkpoints.ema_pytorch(tmp_path)
    assert_same(load(theirs.address, device="cpu"), theirs, times=ITS_OWN_TIMES, state=-2)
    online = load(f"{theirs.address}&ema=False", device="cpu")
    with pytest.raises(AssertionError):
        assert_same(online, theirs, times=ITS_OWN_TIMES, state=-2)


# image_transformer_v1 compiles itself, which takes minutes.
@pytest.mark.parametrize("kind", ["image_v1", pytest.param("image_transformer_v1", marks=pytest.mark.slow)])
def test_k_diffusion(tmp_path, kind):
    pytest.importorskip("k_diffusion")
    theirs = checkpoints.k_diffusion(tmp_path, kind=kind)
    assert_same(load(theirs.address, device="cpu"), theirs)
    # The slim form, as its convert_for_inference.py writes it; and an older one, whose configuration lies beside it.
    whole = torch.load(theirs.address.partition(":")[2], weights_only=True)
    config = json.dumps(whole["config"])
    save_file(whole["model_ema"], tmp_path / "slim.safetensors", metadata={"config": config})
    assert_same(load(f"k-diffusion:{tmp_path}/slim.safetensors", device="cpu"), theirs)
    (tmp_path / "config.json").write_text(config)
    torch.save({"model": whole["model"], "model_ema": whole["model_ema"]}, tmp_path / "old.pth")
    assert_same(load(f"k-diffusion:{tmp_path}/old.pth?config={tmp_path}/config.json", device="cpu"), theirs)


@pytest.mark.parametrize(
    ("library", "maker", "options"),
    [
        ("denoising_diffusion_pytorch", "ddpm_pytorch", {"size": ("a", "8,8,8", "0", "2.5"), "theta": ("'a'",)}),
        ("torchcfm", "torchcfm", {"size": ("a", "8,8,8", "0", "None"), "heads": ("-1", "0")}),
        ("smalldiffusion", "small", {"size": ("a", "0", "8,8")}),
    ],
)
def test_options_that_mean_nothing_are_one_sentence(tmp_path, library, maker, options):
    pytest.importorskip(library)
    pytest.importorskip("accelerate")
    address = getattr(checkpoints, maker)(tmp_path).address
    path, _, query = address.partition("?")
    for option, values in options.items():
        rest = [pair for pair in query.split("&") if not pair.startswith(f"{option}=")]
        for value in values:
            with pytest.raises(UserError) as caught:
                load(f"{path}?{'&'.join([*rest, f'{option}={value}'])}", device="cpu")
            assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("classes", [0, 10])
def test_torchcfm(tmp_path, classes):
    pytest.importorskip("torchcfm")
    theirs = checkpoints.torchcfm(tmp_path, classes)
    assert_same(load(theirs.address, device="cpu"), theirs)
    with pytest.raises(UserError, match="heads"):
        load(theirs.address.replace("&head_channels=16", ""), device="cpu")


@pytest.mark.parametrize("heads", [{"num_heads": 4}, {"num_head_channels": 16, "use_new_attention_order": True}])
def test_guided_diffusion(tmp_path, heads):
    pytest.importorskip("torchcfm")
    adm = pytest.importorskip("azula.plugins.adm")  # which brings guided-diffusion's own network along
    options = {
        "model_channels": 32,
        "num_res_blocks": 2,
        "attention_resolutions": (2,),
        "channel_mult": (1, 2),
        "num_classes": 5,
    }
    options |= {
        "image_size": SIZE,
        "in_channels": 3,
        "out_channels": 6,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    }
    torch.manual_seed(0)
    net = adm.unet.UNetModel(**options, **heads).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(net.state_dict(), tmp_path / "x.pt")
    said = "heads=4" if "num_heads" in heads else "head_channels=16&new_attention_order=True"
    model = load(f"guided-diffusion:{tmp_path}/x.pt?size={SIZE}&{said}", device="cpu")
    x, labels, level = (
        torch.randn(2, 3, SIZE, SIZE),
        torch.tensor([1, 4]),
        (1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0),
    )
    for index in (0, 500, 999):
        with torch.no_grad():
            eps = net(x, torch.full((2,), float(index)), labels)[:, :3]
        found = model.denoiser(x, (index + 1) / 1000, labels)
        assert torch.equal(found.eps, eps)
        x0 = (x - (1 - level[index]).sqrt() * eps) / level[index].sqrt()
        torch.testing.assert_close(found.x0 / x0.abs().max(), (x0 / x0.abs().max()).to(found.x0), atol=1e-5, rtol=0)


def of_lines(file, family):
    """The model that the lines of the message make, with `Backbone` as the network of one's own."""
    with pytest.raises(UserError, match=family) as caught:
        load(str(file))
    code = "\n".join(line.strip() for line in str(caught.value).splitlines() if line.startswith("    "))
    names = {"MyBackbone": lambda _: Backbone()}
    exec(code.replace("(CHANNELS, HEIGHT, WIDTH)", f"(1, {SIZE}, {SIZE})"), names)
    return names["model"]


def test_azula(tmp_path):
    pytest.importorskip("azula")
    theirs = checkpoints.azula(tmp_path)
    model = of_lines(theirs.address, "azula")
    # At its t = 0 a thousandth of noise is left; ours ends at none. So: the state before, and no more apart than that at the end.
    path = list(model.path(NOISE, INDICES, Sampler("ddim", steps=STEPS)))
    expected = theirs.sample(NOISE.initial(INDICES, (1, SIZE, SIZE)).double())
    last = path[-2]
    alpha, sigma = model.denoiser.schedule.alpha(last.t), model.denoiser.schedule.sigma(last.t)
    eps = (last.x_t - alpha * last.x0) / sigma
    torch.testing.assert_close(path[-1].x_t + 1e-3 * eps, expected, atol=1e-4, rtol=0)


def test_flow_matching(tmp_path):
    pytest.importorskip("flow_matching")
    theirs = checkpoints.flow_matching(tmp_path)
    net = Backbone()
    net.load_state_dict(load_state(theirs.address))
    told = {"schedule": "flow", "predicts": "-flow", "time": "reversed", "shape": (1, SIZE, SIZE), "name": "fm"}
    assert_same(wrap_module(net, **told), theirs)


UNETS = [
    {"num_res_blocks": 2, "channel_mult": (1, 2, 2), "attention_resolutions": (2, 4), "use_scale_shift_norm": True},
    {
        "num_res_blocks": 1,
        "channel_mult": (0.5, 1),
        "attention_resolutions": (),
        "resblock_updown": True,
        "num_classes": 7,
    },
    {"num_res_blocks": 3, "channel_mult": (1,), "attention_resolutions": (1,), "out_channels": 6},
]


@pytest.mark.parametrize("options", UNETS)
def test_the_arguments_of_the_guided_unet_are_read_off_its_tensors(options):
    unet = pytest.importorskip("torchcfm.models.unet.unet")
    base = {"image_size": None, "in_channels": 3, "out_channels": 3, "model_channels": 64, "num_classes": None}
    said = {**base, "use_scale_shift_norm": False, "resblock_updown": False, **options}
    found = unet_options(unet.UNetModel(**said).state_dict())
    if len(options["channel_mult"]) == 1:  # nothing is halved then
        said["resblock_updown"] = found["resblock_updown"]
    assert found == said


DDPM_UNETS = [
    {"dim": 8, "dim_mults": (1, 2, 4), "channels": 3},
    {
        "dim": 16,
        "dim_mults": (1, 1),
        "channels": 1,
        "self_condition": True,
        "full_attn": (True, False),
        "attn_heads": (2, 4),
    },
    {"dim": 8, "dim_mults": (2, 2), "channels": 1, "init_dim": 12, "learned_variance": True, "attn_dim_head": (4, 8)},
]


@pytest.mark.parametrize("options", DDPM_UNETS)
def test_the_arguments_of_the_ddpm_unet_are_read_off_its_tensors(options):
    package = pytest.importorskip("denoising_diffusion_pytorch")
    torch.manual_seed(0)
    net = package.Unet(**options).eval()
    again = package.Unet(**ddpm_options(net.state_dict())).eval()
    again.load_state_dict(net.state_dict())
    x, t = torch.randn(2, options["channels"], 16, 16), torch.tensor([3, 70])
    with torch.no_grad():
        torch.testing.assert_close(again(x, t), net(x, t), rtol=0, atol=0)
