"""Pipelines of diffusers through us are what they are by themselves, to the bit, from our noise."""

import contextlib
import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

import tiny_pipelines as tiny  # noqa: E402

import consistency_lab as cl  # noqa: E402
from consistency_lab.cli import main  # noqa: E402
from consistency_lab.errors import UserError  # noqa: E402
from consistency_lab.pipelines.diffusers_pipeline import PipelineModel, load_pipeline  # noqa: E402
from consistency_lab.pipelines.shared_draws import SharedDraws, step_generators, step_seed  # noqa: E402
from consistency_lab.store.checkpoint import save_tensors  # noqa: E402
from consistency_lab.store.results import provenance  # noqa: E402

try:
    import transformers  # noqa: F401

    TEXT = ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"]
except ImportError:
    TEXT = []
needs_text = pytest.mark.skipif(not TEXT, reason="transformers is not installed")
KINDS = [
    "ddim",
    "dit",
    *(
        pytest.param(name, marks=needs_text)
        for name in ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux")
    ),
]
NOISE, PROMPTS = cl.SharedNoise(3), ["a cat", "red dog of"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny pipelines by name, each built once."""
    root, built = tmp_path_factory.mktemp("pipelines"), {}

    def of(name, seed=0, **options):
        key = f"{name}-{seed}"
        if key not in built:
            pipe = getattr(tiny, name)(root / "tokenizers", seed=seed, **options)
            pipe.save_pretrained(root / key)
            built[key] = root / key
        return built[key]

    return of


def asked(name):
    """Options of a tiny pipeline."""
    common = {"steps": 3, "batch": 2, "device": "cpu"}
    if name in ("ddim", "ddpm"):
        return common
    if name == "dit":
        return common | {"labels": [3, 7], "guidance": 4.0}
    return common | {"prompts": PROMPTS, "size": 16}


def called(pipe, name, indices, noise=NOISE, **more):
    """Their own call with our noise as latents, for pipelines that take these."""
    pipe.set_progress_bar_config(disable=True)
    latents = noise.initial(indices, (4, 8, 8))
    if name == "flux":
        latents = pipe._pack_latents(latents, len(indices), 4, 8, 8)
    prompts = [PROMPTS[i % 2] for i in indices]
    size = {"height": 16, "width": 16}
    return pipe(prompts, latents=latents, num_inference_steps=3, output_type="pt", **size, **more).images


def ours(pipe, scheduler, denoise, indices, shape):
    """The loop of an unconditional or class-conditional pipeline, written out."""
    x = NOISE.initial(indices, shape)
    scheduler.set_timesteps(3)
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t), t, x).prev_sample
    return x


@needs_text
@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"])
def test_theirs_through_us_is_theirs_to_the_bit(folders, name):
    model = load_pipeline(folders(name), **asked(name))
    made = model.generate(NOISE, range(4))
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        folders(name), **({"text_encoder_3": None, "tokenizer_3": None} if name.endswith("_3") else {})
    )
    with torch.no_grad():
        own = torch.cat([called(pipe, name, [0, 1]), called(pipe, name, [2, 3])])
    assert torch.equal(made, own * 2 - 1)
    assert not torch.equal(made[0], made[2])


@torch.no_grad()
def test_ddim_and_dit_which_take_no_latents_too(folders):
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders("ddim"))
    net = pipe.unet
    x = ours(pipe, pipe.scheduler, lambda x, t: net(x, t).sample, [0, 1], (3, 8, 8))
    made = load_pipeline(folders("ddim"), **asked("ddim")).generate(NOISE, range(2))
    assert torch.equal(made, (x / 2 + 0.5).clamp(0, 1) * 2 - 1)

    pipe = diffusers.DiffusionPipeline.from_pretrained(folders("dit"))
    classes = torch.tensor([3, 7, 1000, 1000])

    def guided(x, t):
        out = pipe.transformer(torch.cat([x, x]), timestep=t.expand(4), class_labels=classes).sample[:, :4]
        given, free = out.chunk(2)
        return free + 4.0 * (given - free)

    x = ours(pipe, pipe.scheduler, guided, [0, 1], (4, 8, 8))
    images = (pipe.vae.decode(1 / pipe.vae.config.scaling_factor * x).sample / 2 + 0.5).clamp(0, 1)
    made = load_pipeline(folders("dit"), **asked("dit")).generate(NOISE, range(2))
    assert torch.equal(made, images * 2 - 1)


@pytest.mark.parametrize("name", KINDS)
def test_our_noise_reaches_them_to_the_bit_and_batches_do_not_matter(folders, name):
    options = asked(name) | {"space": "latents"}
    model = load_pipeline(folders(name), **options)
    shape = model.noise_shape  # asked before anything was made
    first = model.made(NOISE, range(4))
    scale = diffusers.DiffusionPipeline.from_pretrained if name == "stable_diffusion_xl" else None
    start = NOISE.initial(range(4), shape)
    if scale:
        scheduler = diffusers.EulerDiscreteScheduler()
        scheduler.set_timesteps(3)
        start = start * scheduler.init_noise_sigma
    assert torch.equal(first.estimates(range(4), [0], "latents")[0], start)
    again = load_pipeline(folders(name), **options).made(NOISE, range(3))  # 3 of batches of 2: to the bit
    assert torch.equal(first.generate(NOISE, range(3)), again.generate(NOISE, range(3)))
    larger = load_pipeline(folders(name), **(options | {"batch": 4 if name != "dit" else 2})).made(NOISE, range(4))
    one, other = (each.generate(NOISE, range(4)) for each in (first, larger))
    assert torch.allclose(one, other, atol=1e-3 * float(one.abs().max()))
    assert first.facts["noise_seed"] == 3
    assert model.noise_shape == shape


@needs_text
def test_noise_of_steps_is_that_of_their_generator_argument(folders):
    options = asked("stable_diffusion") | {"scheduler": "EulerAncestralDiscrete"}
    model = load_pipeline(folders("stable_diffusion"), **options)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders("stable_diffusion"))
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    with torch.no_grad():
        own = called(pipe, "stable_diffusion", [0, 1], generator=step_generators(NOISE, [0, 1]))
    made = model.made(NOISE, range(2))
    assert torch.equal(made.generate(NOISE, range(2)), own * 2 - 1)
    assert made.facts["noise_draws"] == 3


@needs_text
def test_brownian_paths_are_those_of_their_seed_argument_one_for_each_image(folders):
    """``generator=`` does not reach this scheduler, and one seed for all would give the images of every batch the same paths."""
    pytest.importorskip("torchsde")
    options = asked("stable_diffusion") | {"scheduler": "DPMSolverSDE"}
    made = load_pipeline(folders("stable_diffusion"), **options).made(NOISE, range(4))
    assert made.facts["noise_draws"] > 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders("stable_diffusion"))
    seeds = [step_seed(NOISE.seed, index) for index in (2, 3)]
    pipe.scheduler = diffusers.DPMSolverSDEScheduler.from_config(pipe.scheduler.config, noise_sampler_seed=seeds)
    with torch.no_grad():
        own = called(pipe, "stable_diffusion", [2, 3])
    images = made.generate(NOISE, range(4))
    assert torch.equal(images[2:], own * 2 - 1)
    narrow, alone = (
        load_pipeline(folders("stable_diffusion"), **(options | more)).generate(NOISE, range(4))
        for more in ({"dtype": "bfloat16"}, {"batch": 1})
    )
    assert torch.allclose(alone, images, atol=1e-4)
    assert (narrow - images).pow(2).mean() < 0.01 * (images[[2, 3, 0, 1]] - images).pow(2).mean()


def test_noise_of_steps_is_shared_between_batches_and_types(folders):
    """DDPM draws at every step; image 3 has the same noise in any batch, and in bfloat16 the rounded one."""
    folder = folders("ddim", kind="DDPM")
    images = [
        load_pipeline(folder, **(asked("ddpm") | {"batch": batch, "steps": 8})).generate(NOISE, [3]) for batch in (1, 4)
    ]
    assert torch.allclose(*images, atol=1e-4)
    narrow = load_pipeline(folder, **(asked("ddpm") | {"steps": 8, "dtype": "bfloat16"})).generate(NOISE, [3])
    other = load_pipeline(folder, **(asked("ddpm") | {"steps": 8})).generate(NOISE, [2])
    assert (narrow - images[0]).pow(2).mean() < 0.01 * (other - images[0]).pow(2).mean()


@pytest.mark.parametrize(
    "name",
    ["dit", pytest.param("stable_diffusion", marks=needs_text), pytest.param("stable_diffusion_3", marks=needs_text)],
)
def test_variants_rank_as_they_should(folders, name):
    made = {
        what: load_pipeline(folders(name), name=what, **(asked(name) | {"batch": 8} | options))
        for what, options in {
            "fp32": {}, "again": {}, "bf16": {"dtype": "bfloat16"}, "fp8": {"dtype": "bfloat16", "quantize": "layerwise:fp8"},
        }.items()
    }  # fmt: skip
    made["weights"] = load_pipeline(folders(name, seed=1), name="weights", **(asked(name) | {"batch": 8}))
    images = {what: model.generate(NOISE, range(8)) for what, model in made.items()}
    error = {what: float((images[what] - images["fp32"]).pow(2).mean()) for what in images}
    assert error["again"] == 0 < error["bf16"] < error["fp8"] < error["weights"]


@needs_text
def test_a_quantised_denoiser_is_near_and_not_equal(folders):
    pytest.importorskip("torchao")
    options = asked("stable_diffusion_3") | {"batch": 4}
    images = {
        kind: load_pipeline(folders("stable_diffusion_3"), quantize=kind, **options).generate(NOISE, range(4))
        for kind in (None, "torchao:int8wo")
    }
    apart = (images[None] - images["torchao:int8wo"]).pow(2).mean()
    assert 0 < apart < 0.01 * (images[None][0] - images[None][2]).pow(2).mean()


@pytest.mark.slow
@needs_text
def test_a_lora_changes_the_images_as_it_does_theirs(folders, tmp_path):
    peft = pytest.importorskip("peft")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders("stable_diffusion"))
    torch.manual_seed(0)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    state = diffusers.utils.convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
    pipe.save_lora_weights(tmp_path / "lora", unet_lora_layers=state)
    with torch.no_grad():
        own = called(pipe, "stable_diffusion", [0, 1])
    made = load_pipeline(folders("stable_diffusion"), lora=tmp_path / "lora", **asked("stable_diffusion"))
    assert torch.equal(made.generate(NOISE, range(2)), own * 2 - 1)
    plain = load_pipeline(folders("stable_diffusion"), **asked("stable_diffusion"))
    assert not torch.equal(plain.generate(NOISE, range(2)), own * 2 - 1)
    empty = tmp_path / "empty.safetensors"
    save_tensors(empty, {"unrelated": torch.zeros(1)}, {})
    with pytest.raises(UserError, match="the LoRA"):
        load_pipeline(folders("stable_diffusion"), lora=empty, **asked("stable_diffusion")).generate(NOISE, range(2))


@pytest.mark.slow
@needs_text
def test_caches_skip_work(folders):
    options = asked("flux") | {"steps": 6}
    images = {
        cache: load_pipeline(folders("flux"), cache=cache, **options).generate(NOISE, range(2))
        for cache in (None, "firstblock:0", "firstblock:1000", "pab", "taylorseer:2")
    }
    assert torch.allclose(images["firstblock:0"], images[None], atol=1e-5)  # a threshold that is never met
    for cache in ("firstblock:1000", "pab", "taylorseer:2"):
        assert not torch.allclose(images[cache], images[None], atol=1e-4), cache


@needs_text
@pytest.mark.slow
def test_a_compiled_denoiser_makes_the_same_images(folders):
    made = [
        load_pipeline(folders("stable_diffusion"), compile=on, **asked("stable_diffusion")).generate(NOISE, range(2))
        for on in (False, True)
    ]
    assert torch.allclose(*made, atol=1e-4)


def test_a_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for options, package in (
        ({"quantize": "torchao:int8wo"}, "torchao"),
        ({"quantize": "bitsandbytes:nf4"}, "bitsandbytes"),
        ({"lora": "x"}, "peft"),
        ({"offload": "model"}, "accelerate"),
    ):
        with pytest.raises(UserError, match=f"needs the package {package}, .* pip install {package}"):
            load_pipeline(folders("ddim"), **options)


@pytest.mark.slow
@needs_text
def test_a_comparison_of_variants(folders, tmp_path):
    options = asked("stable_diffusion_3") | {"store": tmp_path / "kept"}
    fp32, fp8 = (
        load_pipeline(folders("stable_diffusion_3"), **options, **more) for more in ({}, {"quantize": "layerwise:fp8"})
    )
    assert fp8.name == "stable_diffusion_3-0 quantize=layerwise:fp8 steps=3 size=16x16"
    ds = cl.compare([fp32, fp8], NOISE, count=8, metrics=("mse",))
    assert ds.sizes["t"] == 1
    assert ds["label"].values.tolist() == [0, 1] * 4
    assert ds["images"].shape[-3:] == (3, 16, 16)
    facts = provenance(ds)["models"]
    assert facts[1]["quantize"] == "layerwise:fp8"
    assert facts[0]["vae"] == "AutoencoderKL"
    along = cl.compare(
        [load_pipeline(folders("stable_diffusion_3"), **options, **more, space="latents") for more in ({}, {"quantize": "layerwise:fp8"})],
        NOISE, count=8, metrics=("mse",),
    )  # fmt: skip
    assert along.sizes["t"] == 4
    assert along.attrs["quantity"] == "x0"
    assert 0 < along["score"].isel(t=-1).item() <= 1


def test_what_is_kept_is_not_made_again(folders, tmp_path, monkeypatch):
    options = asked("ddim") | {"store": tmp_path}
    first = load_pipeline(folders("ddim"), **options).generate(NOISE, range(4))
    monkeypatch.setattr("consistency_lab.pipelines.diffusers_pipeline.opened", lambda *_: pytest.fail("loaded again"))
    assert torch.equal(load_pipeline(folders("ddim"), **options).generate(NOISE, [3, 1]), first[[3, 1]])
    for other in ({"steps": 4}, {"dtype": "bfloat16"}, {"batch": 4}):
        with pytest.raises(pytest.fail.Exception, match="loaded again"):
            load_pipeline(folders("ddim"), **(options | other)).generate(NOISE, range(4))
    with pytest.raises(pytest.fail.Exception, match="loaded again"):
        load_pipeline(folders("ddim"), **options).generate(cl.SharedNoise(4), range(4))


def test_models_are_loaded_one_after_the_other(folders, monkeypatch):
    from consistency_lab.pipelines import diffusers_pipeline

    inside, real = [], diffusers_pipeline.opened

    @contextlib.contextmanager
    def watched(*arguments):
        inside.append(1)
        assert len(inside) == 1
        with real(*arguments) as pipe:
            yield pipe
        inside.pop()

    monkeypatch.setattr(diffusers_pipeline, "opened", watched)
    models = [load_pipeline(folders("ddim"), **asked("ddim"), **more) for more in ({}, {"dtype": "bfloat16"})]
    ds = cl.compare(models, NOISE, count=4, metrics=("mse",))
    assert ds["score"].isel(t=-1).item() > 0.9


def test_ours_and_theirs_agree_where_they_should(folders):
    """DDIM with trailing spacing, and as many of our steps: the same solver on the same times."""
    address = f"diffusers:{folders('ddim')}"
    own = cl.load(f"{address}?device=cpu")
    theirs = cl.load(f"{address}?mode=theirs&steps=100&device=cpu&batch=2&space=latents")
    made = own.generate(NOISE, range(2), "ddim(steps=100)")
    other = theirs.generate(NOISE, range(2))
    apart = float((made - other).pow(2).mean() / (made[0] - made[1]).pow(2).mean())
    assert apart < 0.01, apart


@pytest.mark.slow
def test_ours_is_asked_for_the_labels_that_theirs_is_made_under(folders):
    address = f"diffusers:{folders('dit')}?device=cpu"
    own, theirs = (
        cl.load(f"{address}&mode=ours"),
        cl.load(f"{address}&mode=theirs&labels=3,7&steps=3&batch=4&space=latents"),
    )
    ds = cl.compare([own, theirs], NOISE, count=4, metrics=("mse",), sampler="ddim(steps=3)")
    assert ds["label"].values.tolist() == [3, 7, 3, 7]
    assert "asked for a label" not in ds.attrs["warnings"]
    apart = own.generate(NOISE, range(4), "ddim(steps=3)", labels=[3, 7]) - theirs.generate(NOISE, range(4))
    assert np.allclose(ds["distance"].values[0, -1, :, 0], apart.pow(2).flatten(1).mean(1), rtol=1e-3)
    result = cl.gate(own, theirs, at_least=0.1, noise=NOISE, count=16, sampler="ddim(steps=3)")
    assert set(result["label"].values.tolist()) == {3, 7}


@pytest.mark.slow
@needs_text
def test_other_prompts_are_refused_by_the_names_of_the_pipelines(folders):
    a, b = (
        load_pipeline(
            folders("stable_diffusion"), name=name, **(asked("stable_diffusion") | {"prompts": [prompt], "steps": 1})
        )
        for name, prompt in (("one", "a cat"), ("two", "a dog"))
    )
    with pytest.raises(UserError, match=r"'two' was asked for 'a dog' and 'one' for 'a cat' \(sample 0\)"):
        cl.compare([a, b], NOISE, count=2)


def test_noise_is_checked_before_a_pipeline_makes_anything(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("consistency_lab.pipelines.diffusers_pipeline.opened", lambda *_: pytest.fail("loaded"))
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
    model, folder = load_pipeline(folders("ddim"), **asked("ddim")), cl.load_folder_model(tmp_path / "out")
    with pytest.raises(
        UserError, match="'out' is a folder: the noise of its images is not known, and 'ddim-0 steps=3' makes"
    ):
        cl.compare([model, folder], NOISE)


def test_the_address_chooses_a_mode(folders):
    address = f"diffusers:{folders('ddim')}"
    assert isinstance(cl.load(address), cl.DiffusionModel)
    assert isinstance(cl.load(f"{address}?mode=theirs"), PipelineModel)
    with pytest.raises(UserError, match=r"dtype is no option of mode=ours .*add mode=theirs"):
        cl.load(f"{address}?dtype=bfloat16")
    with pytest.raises(UserError, match="predicts is no option of mode=theirs"):
        cl.load(f"{address}?mode=theirs&predicts=v")
    with pytest.raises(UserError, match="mode='else'"):
        cl.load(f"{address}?mode=else")


@needs_text
def test_the_address_of_a_text_pipeline(folders, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\nred dog of\n")
    model = cl.load(
        f"diffusers:{folders('stable_diffusion')}?prompts={tmp_path / 'prompts.txt'}&steps=3&size=16&device=cpu&batch=2"
    )
    direct = load_pipeline(folders("stable_diffusion"), **asked("stable_diffusion"))
    assert torch.equal(model.generate(NOISE, range(2)), direct.generate(NOISE, range(2)))
    assert model.facts["made"] == direct.facts["made"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float8"}, "unknown dtype"),
        ({"quantize": "torchao:int3"}, "unknown quantisation of torchao|needs the package torchao"),
        ({"quantize": "magic:x"}, "unknown quantiser"),
        ({"cache": "big"}, "unknown cache"),
        ({"scheduler": "Eular"}, "unknown scheduler"),
        ({"scheduler": "FlowMatchEulerDiscrete"}, "for networks of flow matching and .* for those of diffusion models"),
        ({"scheduler": "EDMEuler"}, "for networks of EDM preconditioning and"),
        ({"scheduler": "CMStochasticIterative"}, "for networks of consistency models and"),
        ({"cache": "pab"}, "has no caches"),
        ({"prompts": ["a"]}, "takes no prompt"),
        ({"guidance": 2.0}, "takes no guidance_scale"),
        ({"call": {"strange": 1}}, "takes no strange"),
        ({"steps": 0}, "steps"),
        ({"space": "else"}, "space"),
    ],
)
def test_what_cannot_be_is_said(folders, options, said):
    with pytest.raises(UserError, match=said):
        load_pipeline(folders("ddim"), **(asked("ddim") | options)).generate(NOISE, range(2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"call": {"num_inference_steps": 1}}, "num_inference_steps is said by steps="),
        ({"call": {"guidance_scale": 1}, "guidance": 2}, "guidance_scale is said by guidance="),
        ({"call": {"prompt": "a dog"}}, "prompt is said by prompts="),
        ({"call": {"class_labels": [1]}}, "class_labels is said by labels="),
        ({"call": {"height": 8}}, "height is said by size="),
        ({"call": {"batch_size": 8}}, "batch_size is said by batch="),
        ({"call": {"output_type": "pil"}}, "output_type cannot be given in call="),
        ({"call": {"generator": 1}}, "generator cannot be given in call=: it is made of the shared noise"),
        ({"call": {"latents": 1}}, "latents cannot be given in call=: they are the shared noise"),
        ({"call": {"timesteps": [9, 1]}}, "timesteps in call= and steps= both say the steps"),
        ({"call": "{eta"}, "call='{eta' gives no arguments by name; write call={'eta':0.5}"),
        ({"call": [1]}, "gives no arguments by name"),
        ({"call": {1: 1}}, "gives no arguments by name"),
        ({"call": {"eta": {1}}}, "others cannot be recorded"),
        ({"guidance": -1}, "guidance is a number of 0 or more, not -1"),
        ({"guidance": "a"}, "guidance is a number"),
        ({"cache": "firstblock:-1"}, "firstblock takes a threshold of 0 or more, not '-1'"),
        ({"cache": "firstblock:x"}, "firstblock takes a threshold"),
        ({"cache": "taylorseer:0"}, "taylorseer takes a whole number of steps of 1 or more"),
        ({"cache": "pab:1.5"}, "pab takes a whole number"),
        ({"labels": 2.5}, "each label is a whole number"),
        ({"labels": [-1]}, "each label is a whole number"),
        ({"size": 2.5}, "height is a whole number"),
        ({"size": [8, 8, 8]}, "is not height and width"),
        ({"prompts": 5}, "neither a text file nor a list"),
        ({"prompts": [5]}, "neither a text file nor a list"),
    ],
)
def test_what_is_said_twice_or_means_nothing_is_refused_before_anything_is_loaded(folders, options, said, monkeypatch):
    monkeypatch.setattr("consistency_lab.pipelines.diffusers_pipeline.opened", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        load_pipeline(folders("ddim"), **({"steps": 3, "device": "cpu"} | options))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("error", [AttributeError, IndexError, ZeroDivisionError, AssertionError])
def test_whatever_a_pipeline_raises_is_one_sentence(folders, monkeypatch, error):
    """Their code trips over options in any line; in a property, an AttributeError even reads as "no model"."""

    @functools.wraps(diffusers.DDIMPipeline.__call__)
    def trips(*args, **options):
        raise error("no such thing\nand more")

    monkeypatch.setattr(diffusers.DDIMPipeline, "__call__", trips)
    held = contextlib.nullcontext(tiny.ddim())
    monkeypatch.setattr("consistency_lab.pipelines.diffusers_pipeline.opened", lambda *_: held)
    model = load_pipeline(folders("ddim"), **asked("ddim"))
    other = load_pipeline(folders("ddim"), name="other", **asked("ddim"))
    for ask in (
        lambda: model.noise_shape,
        lambda: model.generate(NOISE, range(2)),
        lambda: cl.compare([model, other], count=2),
        lambda: cl.gate(model, other, at_least=0.5, count=4),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert (
            str(caught.value) == "DDIMPipeline cannot make images with these options (ddim-0 steps=3): no such thing."
        )


@needs_text
def test_a_size_that_does_not_fit_is_one_sentence(folders):
    model = load_pipeline(folders("stable_diffusion"), **(asked("stable_diffusion") | {"size": 33}))
    with pytest.raises(UserError, match=r"StableDiffusionPipeline cannot make .* divisible by 8"):
        _ = model.noise_shape


def test_a_label_that_the_network_does_not_have_is_refused(folders):
    model = load_pipeline(folders("dit"), **(asked("dit") | {"labels": [3, 1000]}))
    with pytest.raises(UserError, match="the label 1000 was asked for, and DiTPipeline knows the labels 0 to 999"):
        model.generate(NOISE, range(2))


def test_the_name_says_all_that_differs_from_a_plain_call(folders):
    options = {"steps": 3, "guidance": 2, "size": (8, 16), "call": {"eta": 0.5}, "dtype": "bfloat16"}
    model = load_pipeline(folders("ddim"), **options)
    assert model.name == "ddim-0 dtype=bfloat16 steps=3 guidance=2.0 size=8x16 eta=0.5"


def test_pipelines_without_their_question_are_refused(folders):
    with pytest.raises(UserError, match="give classes"):
        load_pipeline(folders("dit"), device="cpu").generate(NOISE, range(2))


def test_code_and_pickles_are_refused(folders, tmp_path):
    def changed(what):
        folder = tmp_path / what
        shutil.copytree(folders("ddim"), folder)
        return folder, json.loads((folder / "model_index.json").read_text())

    folder, index = changed("class")
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "Mine"]}))
    with pytest.raises(UserError, match="code of others is not run"):
        load_pipeline(folder)
    folder, index = changed("part")
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["my_unet", "Net"]}))
    with pytest.raises(UserError, match="code of others is not run"):
        load_pipeline(folder)
    folder, _ = changed("code")
    (folder / "unet" / "net.py").write_text("")
    for mode in ("ours", "theirs"):
        with pytest.raises(UserError, match=r"code of its own \(the file unet/net\.py\)"):
            cl.load(f"diffusers:{folder}?mode={mode}", trust=True)
    for key, value in (
        ("custom_pipeline", "mine/pipeline"),
        ("trust_remote_code", True),
        ("auto_map", {"AutoModel": "m.M"}),
    ):
        for file in ("model_index.json", "unet/config.json"):
            folder, _ = changed(f"{key}-{file[:4]}")
            said = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(said | {key: value}))
            with pytest.raises(UserError, match=f"code of its own \\({key}=.* in {file}"):
                cl.load(f"diffusers:{folder}", trust=True)
    folder, _ = changed("pickle")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        load_pipeline(folder)


def test_draws_that_cannot_be_shared_are_refused():
    draw = lambda *shape: vars(diffusers.pipelines.ddim.pipeline_ddim)["randn_tensor"](shape)  # noqa: E731
    with pytest.raises(UserError, match="global generator"), SharedDraws(NOISE, [0]):
        torch.randn_like(draw(1, 3, 4, 4))
    with pytest.raises(UserError, match="asked for 3 noises to make 2"), SharedDraws(NOISE, [0, 1]):
        draw(3, 3, 4, 4)
    with SharedDraws(NOISE, [5, 2]) as draws:
        assert torch.equal(draw(2, 3, 4, 4), NOISE.initial([5, 2], (3, 4, 4)))
        doubled = draw(4, 3, 4, 4)
    assert torch.equal(doubled[:2], doubled[2:])
    assert draws.draws == 1
    with pytest.raises(UserError, match="drew no noise"), SharedDraws(NOISE, [0]):
        pass
    from diffusers.utils.torch_utils import randn_tensor

    assert vars(diffusers.pipelines.ddim.pipeline_ddim)["randn_tensor"] is randn_tensor  # all is as it was


def test_a_gate_passes_a_second_run_fails_other_weights_and_cannot_tell_with_two(folders, tmp_path):
    options = asked("ddim") | {"batch": 64, "store": tmp_path}
    reference, again = (load_pipeline(folders("ddim"), name=name, **options) for name in ("ref", "again"))
    other = load_pipeline(folders("ddim", seed=1), name="other", **options)
    assert cl.gate(reference, again, at_least=0.95, noise=NOISE, count=256).attrs["decision"] == "pass"
    assert cl.gate(reference, other, at_least=0.95, noise=NOISE, count=256).attrs["decision"] == "fail"
    narrow = load_pipeline(folders("ddim"), name="narrow", **options, dtype="bfloat16")
    assert cl.gate(reference, narrow, at_least=0.95, noise=NOISE, count=2).attrs["decision"] == "cannot tell"


def test_a_dry_run_knows_what_runs_itself(folders, capsys):
    address, samples = f"diffusers:{folders('ddim')}", 4 * (50 + 100)
    for more, evaluations in (
        ("", 2 * samples),
        ("?mode=theirs", f"{samples}, and as many as 1 pipelines take by themselves"),
    ):
        assert main(["compare", address, f"{address}{more}", "--count", "4", "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["network_evaluations"] == evaluations
