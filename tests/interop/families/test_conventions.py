"""Does each family's wrapping say what that code base means? Closed form: networks that are the best linear denoiser, in its own words.

Each stand-in is written from what the code base's training loop does: how it mixes its states, what it tells its network as time, and what
it asks for. The lines that the message gives are run with it, and the model that comes out must be the best linear denoiser in ours.
"""

import sys
from functools import cache
from types import ModuleType

import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.errors import UserError
from consistency_lab.interop.families.registry import FAMILIES, families_of
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.states import load_state
from consistency_lab.interop.wrapping import check_wrapping
from consistency_lab.loading import load

SIZE = 8
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
LATENT_BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2


class Best:
    """The best linear denoiser of the digits ``(1, 8, 8)`` repeated over channels, for pixels in [lo, hi]; x0 and eps of a state."""

    def __init__(self, low=-1.0):
        x = load_images("digits").all().flatten(1).double()
        x = (x + 1) / 2 if low == 0 else x
        self.mean = x.mean(0)
        self.values, self.vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))

    def __call__(self, x, alpha, sigma):
        shape, flat = x.shape, x.double().flatten(2)
        alpha, sigma = alpha.double().reshape(-1, 1, 1), sigma.double().reshape(-1, 1, 1)
        gain = alpha * self.values / (alpha**2 * self.values + sigma**2)
        x0 = self.mean + ((flat - alpha * self.mean) @ self.vectors * gain) @ self.vectors.T
        return x0.reshape(shape), ((flat - alpha * x0) / sigma).reshape(shape)


best = cache(Best)


def table(betas, index):
    level = (1 - betas).cumprod(0)[index.round().long()]
    return level.sqrt(), (1 - level).sqrt()


def vp_sde(t):
    """Song et al. 2021, beta from .1 to 20: the integral of beta is .1 t + 9.95 t^2."""
    kept = torch.exp(-(0.1 * t + 9.95 * t**2))
    return kept.sqrt(), (1 - kept).sqrt()


class StandIn(nn.Module):
    """Has those tensors, takes any options, and answers as that code base's networks do."""

    def __init__(self, state, answer):
        super().__init__()
        self.held, self.answer = state, answer
        self.img_channels, self.img_resolution = 1, SIZE

    def load_state_dict(self, state):
        assert set(state) == set(self.held)

    def forward(self, *inputs):
        return self.answer(*inputs).to(inputs[0].dtype)

    @property
    def model(self):
        return self


def zeros(**shapes):
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def unet_state(outputs=1, classes=0):
    """A U-Net of two levels and one block in each, attention in the second."""
    w, wide = 16, 32
    state = {
        "time_embed.0.weight": (64, w),
        "input_blocks.0.0.weight": (w, 1, 3, 3),
        "input_blocks.1.0.out_layers.3.weight": (w, w, 3, 3),
        "input_blocks.1.0.emb_layers.1.weight": (w, 64),
        "input_blocks.2.0.op.weight": (w, w, 3, 3),
        "input_blocks.3.0.out_layers.3.weight": (wide, w, 3, 3),
        "input_blocks.3.1.qkv.weight": (96, wide, 1),
        "middle_block.1.qkv.weight": (96, wide, 1),
        "output_blocks.0.1.qkv.weight": (96, wide, 1),
        "output_blocks.1.2.conv.weight": (wide, wide, 3, 3),
        "output_blocks.3.0.out_layers.3.weight": (w, w, 3, 3),
        "out.2.weight": (outputs, w, 3, 3),
        **({"label_emb.weight": (classes, 64)} if classes else {}),
    }
    return zeros(**state)


def dit_state(learned=True):
    shapes = {
        "pos_embed": (1, 16, 32),
        "x_embedder.proj.weight": (32, 1, 2, 2),
        "t_embedder.mlp.0.weight": (32, 256),
        "y_embedder.embedding_table.weight": (11, 32),
        "blocks.0.adaLN_modulation.1.weight": (192, 32),
        "blocks.1.adaLN_modulation.1.weight": (192, 32),
        "final_layer.linear.weight": (8 if learned else 4, 32),
    }
    return zeros(**shapes)


def uvit_state(channels):
    shapes = {
        "pos_embed": (1, 17, 32),
        "patch_embed.proj.weight": (32, channels, 2, 2),
        "in_blocks.0.attn.qkv.weight": (96, 32),
        "mid_block.attn.qkv.weight": (96, 32),
        "out_blocks.0.skip_linear.weight": (32, 64),
        "decoder_pred.weight": (4 * channels, 32),
        "final_layer.weight": (channels, channels, 3, 3),
    }
    return zeros(**shapes)


def score_state(fourier):
    first = {"all_modules.0.W": (16,)} if fourier else {"all_modules.0.weight": (64, 16)}
    return zeros(sigmas=(10,), **first, **{"all_modules.1.weight": (64, 32)})


EDM_STATE = zeros(
    **{"map_layer0.weight": (64, 16), "enc.8x8_conv.weight": (16, 1, 3, 3), "dec.8x8_in0.weight": (16, 16)}
)


def velocity(x, t):
    """Data minus noise on the straight path whose t = 0 is noise."""
    x0, eps = best()(x, t, 1 - t)
    return x0 - eps


def ve_score(x, sigma):
    x0, _ = best(0.0)(x, torch.ones_like(sigma), sigma)
    return (x0 - x) / sigma.reshape(-1, 1, 1, 1) ** 2


# family -> its tensors, the module its class is in with the class's name, and its network's answer.
STAND_INS = {
    "guided-diffusion": (
        unet_state(),
        "guided_diffusion.unet",
        "UNetModel",
        lambda x, i: best()(x, *table(BETAS, i))[1],
    ),
    "improved-diffusion": (
        unet_state(outputs=2),
        "improved_diffusion.unet",
        "UNetModel",
        lambda x, i: best()(x, *table(BETAS, i))[1].repeat(1, 2, 1, 1),
    ),
    "torchcfm": (unet_state(classes=10), "torchcfm.models.unet.unet", "UNetModel", lambda t, x, y: velocity(x, t)),
    "DiT": (dit_state(), "models", "DiT", lambda x, i, y: best()(x, *table(BETAS, i))[1].repeat(1, 2, 1, 1)),
    "SiT": (dit_state(), "models", "SiT", lambda x, t, y: velocity(x, t)),
    "U-ViT": (uvit_state(1), "libs.uvit", "UViT", lambda x, s: best()(x, *vp_sde(s / 999))[1]),
    "U-ViT latents": (uvit_state(4), "libs.uvit", "UViT", lambda x, n: best()(x, *table(LATENT_BETAS, n - 1))[1]),
    "score_sde": (score_state(False), "models.utils", "get_model", lambda x, s: best()(x, *vp_sde(s / 999))[1]),
    "score_sde VE": (score_state(True), "models.utils", "get_model", ve_score),
    "EDM": (EDM_STATE, "training.networks", "EDMPrecond", lambda x, s: best()(x, torch.ones_like(s), s)[0]),
}


def model_of(key, tmp_path, monkeypatch):
    """What the lines of the message make of a checkpoint with that stand-in."""
    state, home, name, answer = STAND_INS[key]
    file = tmp_path / "checkpoint.pt"
    torch.save({"ema": {f"module.{k}": v for k, v in state.items()}, "model": state, "opt": {"state": {}}}, file)
    found = load_state(file)
    family = next(f for f in families_of(found) if f.name == key.partition(" ")[0])
    for part in range(1, home.count(".") + 2):
        monkeypatch.setitem(sys.modules, ".".join(home.split(".")[:part]), ModuleType(home))
    for other in ("ddpm", "ncsnv2", "ncsnpp"):
        setattr(sys.modules[home.split(".")[0]], other, None)
    monkeypatch.setattr(sys.modules[home.split(".")[0]], home.split(".")[-1], sys.modules[home], raising=False)
    make = lambda *a, **options: StandIn(state, answer)  # noqa: E731
    setattr(sys.modules[home], name, make if name != "get_model" else lambda _: make)
    (tmp_path / "OPTIONS.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    config = type("Config", (), {"model": type("Model", (), {"name": ""})})
    import consistency_lab as cl

    names = {"cl": cl, "torch": torch, "state": found, "SIZE": SIZE, "config": config}
    channels = 4 if key == "U-ViT latents" else 1
    code = "\n".join(family.recipe(found, "theirs")).replace(
        "(CHANNELS, HEIGHT, WIDTH)", f"({channels}, {SIZE}, {SIZE})"
    )
    exec(code, names)
    return names["model"], code


@pytest.mark.parametrize("key", STAND_INS)
def test_the_lines_make_the_best_linear_denoiser_of_its_network(key, tmp_path, monkeypatch):
    model, code = model_of(key, tmp_path, monkeypatch)
    images = load_images("digits")
    schedule = model.denoiser.schedule
    generator = torch.Generator().manual_seed(0)
    x0 = images.batch(range(4)).double().repeat(1, model.noise_shape[0], 1, 1)
    for level in (-3.0, 0.0, 3.0, 6.0):
        t = (schedule.time_from_log_snr(level) * 1000).round() / 1000  # the discrete ones know no other
        eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x_t = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
        labels = model.labels(range(4))
        expected, _ = best()(x_t, schedule.alpha(t).expand(4), schedule.sigma(t).expand(4))
        got = model.denoiser(x_t, float(t), labels).x0
        assert float((got - expected).abs().max()) < 1e-5, (key, level, code)


FLIPS = [
    ("torchcfm", {"predicts": "flow", "time": "unit"}, "predicts='-flow', time='reversed'"),
    ("SiT", {"predicts": "flow"}, "predicts='-flow'"),
    ("SiT", {"time": "unit"}, "time='reversed'"),
    ("guided-diffusion", {"predicts": "v"}, "predicts='eps'"),
    ("guided-diffusion", {"time": "unit"}, "time='index'"),
    ("EDM", {"predicts": "eps"}, "predicts='x0'"),
    ("score_sde", {"predicts": "score"}, "predicts='eps'"),
    ("score_sde VE", {"value_range": (-1, 1)}, "value_range=(0, 1)"),
]


@pytest.mark.filterwarnings("ignore:theirs")
@pytest.mark.parametrize(("key", "told", "instead"), FLIPS)
def test_a_wrong_time_sign_or_prediction_is_told_and_the_right_one_is_not_blamed(
    key, told, instead, tmp_path, monkeypatch
):
    right, _ = model_of(key, tmp_path, monkeypatch)
    images = load_images("digits")
    assert not check_wrapping(right, images).suspect
    denoiser = right.denoiser
    said = {name: getattr(denoiser.told, name) for name in ("schedule", "predicts", "time", "value_range")}
    network = denoiser.network
    options = {
        "classes": network.classes,
        "null_label": network.null_label,
        "learned_variance": network.learned_variance,
    }
    wrong = wrap_module(
        network.module, **{**said, **told}, **options, call=network.call, shape=(1, SIZE, SIZE), name="theirs"
    )
    assert check_wrapping(wrong, images).instead == instead


def test_every_family_has_its_own_names_or_shares_a_network():
    shared = [
        {"torchcfm", "flow_matching (its image example)", "guided-diffusion", "improved-diffusion"},
        {"DiT", "SiT"},
    ]
    for key, (state, *_) in STAND_INS.items():
        found = {family.name for family in families_of(state)}
        assert key.partition(" ")[0] in found
        assert len(found) == 1 or found in shared
    assert families_of({"conv.weight": torch.zeros(3, 3)}) == []
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_message_names_each_way(tmp_path):
    file = tmp_path / "x.pt"
    torch.save({"ema_model": unet_state(), "optim": {}, "step": 3}, file)
    with pytest.raises(UserError) as caught:
        load(str(file))
    said = str(caught.value)
    assert "This is torchcfm or flow_matching (its image example) or guided-diffusion or improved-diffusion" in said
    assert f"torchcfm:{file}?size=32&heads=4" in said
    assert "learned_variance" not in said
    assert "schedule='flow', predicts='-flow', time='reversed'" in said


def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch):
    file = tmp_path / "x.pt"
    torch.save(unet_state(), file)
    monkeypatch.setitem(sys.modules, "torchcfm.models.unet.unet", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install torchcfm"):
        load(f"torchcfm:{file}?size=8&heads=1", device="cpu")
    for address, said in [
        (f"torchcfm:{file}", "does not give size"),
        (f"torchcfm:{file}?size=8", "leave no trace"),
        (f"guided-diffusion:{file}?size=8&heads=1&head_channels=2", "leave no trace"),
        (f"ddpm-pytorch:{file}?size=8", "holds no Unet of denoising-diffusion-pytorch"),
        (f"smalldiffusion:{file}", "holds no Unet or DiT of smalldiffusion"),
        (f"k-diffusion:{file}", "does not hold its configuration"),
        (f"k-diffusion:{file}?sized=3", "unknown option of k-diffusion"),
    ]:
        with pytest.raises(UserError, match=said):
            load(address, device="cpu")


def test_the_yardstick_is_the_package_own():
    images = load_images("digits")
    from consistency_lab.diffusion.schedule import SCHEDULES

    flow = SCHEDULES.build("flow")
    x = torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = GaussianDenoiser.fit(images.all(), flow)(x, 0.4).x0
    got, _ = best()(x, torch.full((3,), 0.6), torch.full((3,), 0.4))
    torch.testing.assert_close(got, expected.double(), atol=1e-4, rtol=0)
