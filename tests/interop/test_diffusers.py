import json
import re
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from consistency_lab.addresses import open_foreign
from consistency_lab.diffusion.model import described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler, sample_path, start_state
from consistency_lab.errors import UserError
from consistency_lab.interop.diffusers import import_diffusers, load_diffusers
from consistency_lab.interop.layout import WEIGHTS
from consistency_lab.networks.diffusers_keys import to_diffusers_state

diffusers = pytest.importorskip("diffusers")
DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 4, "num_embeds_ada_norm": 10}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_our_ddim_makes_the_images_of_theirs(save_unet, their_images, prediction, betas):
    folder = save_unet(scheduler={"prediction_type": prediction, "beta_schedule": betas})
    model = load_diffusers(folder, device="cpu")
    start = start_state(model.denoiser, SharedNoise(0).initial(range(3), (1, 8, 8), "cpu"))
    for steps in (10, 50):
        ours = list(sample_path(model.denoiser, start, Sampler(steps=steps)))[-1].x_t.float()
        theirs = their_images(folder, start, steps)
        # An untrained network that predicts eps leaves "images" as large as 1 / alpha(1), some hundreds and more.
        size = theirs.abs().amax((1, 2, 3), keepdim=True).clamp_min(1.0)
        torch.testing.assert_close(ours / size, theirs / size, atol=1e-5, rtol=0)


def test_the_network_is_given_their_timesteps(save_unet):
    model = load_diffusers(save_unet(scheduler={"num_train_timesteps": 250}), device="cpu")
    seen = []
    model.denoiser.network.module.register_forward_pre_hook(lambda _, given: seen.append(given[1].tolist()))
    for t in (1.0, 0.004, 0.5, 0.123):
        model.denoiser(torch.zeros(2, 1, 8, 8), t)
    assert seen == [[249.0] * 2, [0.0] * 2, [124.0] * 2, [pytest.approx(29.75)] * 2]


def test_what_is_recorded(save_unet):
    model = load_diffusers(save_unet(name="theirs", scheduler={"clip_sample": True}), device="cpu")
    assert model.name == "theirs"
    assert not model.sampler.clip
    expected = {
        "source": "diffusers",
        "network": "UNet2DModel",
        "predicts": "eps",
        "clip_sample": True,
        "makes": "images",
    }
    assert expected.items() <= model.facts.items()
    assert model.facts["parameters"] == sum(p.numel() for p in model.denoiser.parameters()) > 0
    assert len(model.facts["weights_sha256"]) == 64
    json.dumps(described(model))


def test_loading_leaves_the_global_random_state_alone(save_unet):
    folder = save_unet(scheduler={})
    before = torch.get_rng_state()
    load_diffusers(folder, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def save_pipeline(folder, unet=None, **scheduler):
    unet = unet or diffusers.UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline = folder.with_name("pipeline")
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler(**scheduler)).save_pretrained(pipeline)
    return pipeline


def test_pipelines_and_the_networks_inside_of_them(save_unet):
    pipeline = save_pipeline(save_unet(), prediction_type="v_prediction")
    for path in (pipeline, pipeline / "unet"):
        assert load_diffusers(path, device="cpu").denoiser.predicts == "v"
    flat = pipeline.with_name("flat")  # as older pipelines are kept
    shutil.copytree(pipeline / "unet", flat)
    shutil.copy(pipeline / "model_index.json", flat)
    shutil.copy(pipeline / "scheduler" / "scheduler_config.json", flat)
    assert load_diffusers(flat, device="cpu").denoiser.predicts == "v"


def test_without_a_scheduler_its_facts_have_to_be_given(save_unet):
    folder = save_unet()
    with pytest.raises(UserError, match=r"no scheduler_config\.json"):
        load_diffusers(folder, device="cpu")
    model = open_foreign(f"diffusers:{folder}?schedule=linear(beta_end=0.03)&predicts=v", device="cpu")
    assert (model.denoiser.predicts, model.facts["scheduler"]) == ("v", "given by the caller")
    assert "beta_end=0.03" in model.denoiser.schedule.spec


def test_a_dit_pipeline_makes_latents_of_a_label(tmp_path):
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(in_channels=4, out_channels=8, **DIT)
    torch.nn.init.normal_(network.proj_out_2.weight, std=0.1)
    pipeline = tmp_path / "dit"
    network.save_pretrained(pipeline / "transformer")
    diffusers.DDIMScheduler().save_pretrained(pipeline / "scheduler")
    parts = {
        "_class_name": "DiTPipeline",
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (pipeline / "model_index.json").write_text(json.dumps(parts))
    model = load_diffusers(pipeline, device="cpu")
    assert (model.noise_shape, model.classes) == ((4, 4, 4), 10)
    assert model.facts["makes"] == "latents, not decoded"
    assert model.facts["learned_variance"] == "dropped"
    x, labels = torch.randn(2, 4, 4, 4), torch.tensor([3, 7])
    for cond, theirs in ((labels, labels), (None, torch.tensor([10, 10]))):
        expected = network.eval()(x, torch.tensor([499, 499]), theirs).sample[:, :4]
        torch.testing.assert_close(model.denoiser(x, 0.5, cond).eps, expected)
    guided = model.guided(2.0).generate(SharedNoise(0), range(3), Sampler(steps=3))
    assert guided.shape == (3, 4, 4, 4)
    with pytest.raises(UserError, match="no network here can represent"):
        import_diffusers(pipeline)


def test_class_conditional_unets(save_unet):
    model = load_diffusers(save_unet(scheduler={}, num_class_embeds=5), device="cpu")
    assert model.classes == 5
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 4])
    expected = model.denoiser.network.module(x, torch.tensor([9, 9]), labels).sample
    torch.testing.assert_close(model.denoiser(x, 0.01, labels).eps, expected)
    with pytest.raises(UserError, match="no label"):
        model.denoiser(x, 0.01)


def test_a_network_of_ours_with_the_same_weights(save_unet):
    folder = save_unet(scheduler={"prediction_type": "v_prediction"})
    theirs, ours = load_diffusers(folder, device="cpu"), import_diffusers(folder, device="cpu")
    state = load_file(folder / WEIGHTS)
    renamed = to_diffusers_state(ours.denoiser.network)
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[name], state[name]) for name in state)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours.denoiser(x, 0.3).v, theirs.denoiser(x, 0.3).v, atol=1e-5, rtol=0)
    assert ours.denoiser.schedule == theirs.denoiser.schedule


def test_importing_needs_no_diffusers_and_loading_says_that_it_does(save_unet, monkeypatch):
    folder = save_unet(scheduler={})
    monkeypatch.setitem(sys.modules, "diffusers", None)
    import_diffusers(folder, device="cpu")
    with pytest.raises(UserError, match=r"pip install diffusers"):
        load_diffusers(folder, device="cpu")


def test_other_numbers_of_timesteps_cannot_be_imported(save_unet):
    with pytest.raises(UserError, match="250 timesteps"):
        import_diffusers(save_unet(scheduler={"num_train_timesteps": 250}))


def test_the_attention_names_of_old_checkpoints(save_unet):
    folder = save_unet(scheduler={})
    expected = load_diffusers(folder, device="cpu").denoiser(torch.ones(1, 1, 8, 8), 0.5).eps
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / WEIGHTS)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    for load in (load_diffusers, import_diffusers):
        torch.testing.assert_close(load(folder, device="cpu").denoiser(torch.ones(1, 1, 8, 8), 0.5).eps, expected)


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def forget_a_weight(folder):
    state = load_file(folder / WEIGHTS)
    del state["conv_in.bias"]
    save_file(state, folder / WEIGHTS, {"format": "pt"})


BROKEN = {
    "truncated weights": (truncate, "truncated"),
    "a weight missing": (forget_a_weight, r"conv_in\.bias"),
    "weights of another width": (lambda f: rewrite(f / "config.json", block_out_channels=[16, 16]), "config"),
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be read as a JSON object"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "cannot be read as a JSON object"),
    "another class": (lambda f: rewrite(f / "config.json", _class_name="UNet2DConditionModel"), "UNet2DConditionModel"),
    "an impossible config": (lambda f: rewrite(f / "config.json", down_block_types=["Up", "Down"]), "cannot build"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "pickled weights": (lambda f: (f / WEIGHTS).rename(f / "diffusion_pytorch_model.bin"), r"\.bin only"),
    "another precision": (lambda f: (f / WEIGHTS).rename(f / "diffusion_pytorch_model.fp16.safetensors"), "fp16"),
    "a size left open": (lambda f: rewrite(f / "config.json", sample_size=None), "sample_size"),
    "an unknown scheduler": (
        lambda f: rewrite(f / "scheduler_config.json", _class_name="ScoreSdeVeScheduler"),
        "ScoreSdeVe",
    ),
    "a pipeline without network": (lambda f: (f / "model_index.json").write_text('{"vae": 1}'), "neither a unet nor a"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_folder_is_one_sentence(save_unet, broken):
    folder = save_unet(scheduler={})
    breaking, said = BROKEN[broken]
    breaking(folder)
    with pytest.raises(UserError, match=said) as caught:
        load_diffusers(folder, device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"time_embedding_type": "fourier"}, {"time_embedding_type": "learned", "num_train_timesteps": 1000}]
)
def test_networks_whose_time_is_another_one(save_unet, options):
    with pytest.raises(UserError, match="give it to wrap_module"):
        load_diffusers(save_unet(scheduler={}, **options), device="cpu")


def test_a_network_that_takes_other_channels_than_it_gives(save_unet):
    with pytest.raises(UserError, match="takes 1 channels and gives 3"):
        load_diffusers(save_unet(scheduler={}, out_channels=3), device="cpu")
    model = load_diffusers(save_unet(scheduler={}, out_channels=2, name="variance"), device="cpu")
    assert model.denoiser(torch.zeros(2, 1, 8, 8), 0.5).eps.shape == (2, 1, 8, 8)


def test_no_folder_and_a_file():
    for path in ("nowhere", __file__):
        with pytest.raises(UserError, match="there is no folder"):
            load_diffusers(path)


CONFIGS = [
    {"block_out_channels": [2**31, 8]},
    {"layers_per_block": 2**31},
    {"layers_per_block": float("inf")},
    {"num_class_embeds": 10**9},
    {"down_block_types": 5},
    {"norm_num_groups": "a"},
    {"sample_size": [8]},
    {"out_channels": [1, 2]},
]


@pytest.mark.parametrize("change", CONFIGS, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("load", [load_diffusers, import_diffusers])
def test_a_configuration_that_the_weights_cannot_fill_or_of_wrong_types_is_named(save_unet, load, change):
    folder = save_unet(scheduler={})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=re.escape(str(folder))):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    "change",
    [{"_class_name": []}, {"prediction_type": {"a": 1}}, {"trained_betas": []}, {"_schedule": "a"}, {"_schedule": {}}],
)
def test_a_scheduler_of_wrong_types_is_named(save_unet, change):
    folder = save_unet(scheduler={})
    config = json.loads((folder / "scheduler_config.json").read_text())
    (folder / "scheduler_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=r"scheduler_config\.json"):
        import_diffusers(folder, device="cpu")
