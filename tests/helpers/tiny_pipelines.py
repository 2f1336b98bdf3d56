"""Whole pipelines of diffusers with random weights, built from their classes; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ["a", "cat", "dog", "red", "blue", "of", "photo", "shoe", "bag", "coat"]


def tokenizer(folder: Path):
    """A CLIP tokenizer of single letters and a few words."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(ord("a") + i) for i in range(26)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def clip(seed=0, width=16, projection=False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=64, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(seed)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(seed=0, channels=4, **options):
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
        latent_channels=channels, norm_num_groups=4, sample_size=16, **options,
    ).eval()  # fmt: skip


def unet(seed=0, context=16, **options):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=context,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, **options,
    ).eval()  # fmt: skip


def stable_diffusion(folder: Path, seed=0):
    import diffusers

    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return diffusers.StableDiffusionPipeline(
        vae(seed),
        clip(seed),
        tokenizer(folder / "tok"),
        unet(seed),
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder: Path, seed=0):
    import diffusers

    tok = tokenizer(folder / "tok")
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    }
    return diffusers.StableDiffusionXLPipeline(
        vae(seed),
        clip(seed),
        clip(seed + 1, projection=True),
        tok,
        tok,
        unet(seed, 32, **added),
        diffusers.EulerDiscreteScheduler(),
    )


def stable_diffusion_3(folder: Path, seed=0):
    import diffusers

    tok = tokenizer(folder / "tok")
    torch.manual_seed(seed)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=4, pos_embed_max_size=8,
    ).eval()  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=stirred(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(seed, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(seed, projection=True), tokenizer=tok,
        text_encoder_2=clip(seed + 1, projection=True), tokenizer_2=tok,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def flux(folder: Path, seed=0):
    import diffusers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    t5 = T5EncoderModel(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).eval()
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae(seed, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        clip(seed), tokenizer(folder / "tok"), t5, word_tokenizer(PreTrainedTokenizerFast), stirred(transformer),
    )  # fmt: skip


def stirred(transformer, by=0.1):
    """With noise on all weights: outputs and gates begin at or near zero, where nothing that a variant does would be seen."""
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return transformer


def word_tokenizer(kind):
    """A tokenizer of whole words, in place of T5's."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(
        models.WordLevel(
            {"<pad>": 0, "</s>": 1, "<unk>": 2, **{w: i + 3 for i, w in enumerate(WORDS)}}, unk_token="<unk>"
        )
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return kind(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16)


def dit(folder: Path | None = None, seed=0, scheduler=None):
    import diffusers

    torch.manual_seed(seed)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=1000, norm_num_groups=4,
    ).eval()  # fmt: skip
    return diffusers.DiTPipeline(
        stirred(transformer), vae(seed), scheduler or diffusers.DDIMScheduler(clip_sample=False)
    )


def ddim(folder: Path | None = None, seed=0, kind="DDIM"):
    import diffusers

    torch.manual_seed(seed)
    net = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    options = {"clip_sample": False, **({"timestep_spacing": "trailing"} if kind == "DDIM" else {})}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**options)
    return getattr(diffusers, f"{kind}Pipeline")(net, scheduler)
