"""A small latent diffusion of Fashion-MNIST classes as a pipeline of diffusers, and what its variants change.

Run it: python examples/latent_diffusion.py --out pipeline (it needs diffusers: pip install diffusers; minutes on a CPU)

An autoencoder (4x8x8 latents) and a label-conditional DiT are trained briefly and saved as a DiTPipeline. Its variants then make the same
64 images: score of the final images against the pipeline in float32, and along t of the x0 estimates of the latents.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch.nn.functional import pad

import consistency_lab as cl

VARIANTS = {
    "bfloat16": "dtype=bfloat16",
    "fp8 weights": "quantize=layerwise:fp8",
    "int8 weights": "quantize=torchao:int8wo",
    "half the steps": "steps=10",
    "DPM-Solver": "scheduler=DPMSolverMultistep",
}


def train(images: cl.ImageSet, out: Path, vae_steps: int, steps: int, batch: int = 64, seed: int = 0) -> list[float]:
    """Train both networks on images (N, 1, 28, 28) with labels 0 to 9 and save the pipeline. Returns the losses of the denoiser."""
    torch.manual_seed(seed)
    pixels, labels = pad(images.all(), (2, 2, 2, 2), value=-1.0), images.labels
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, norm_num_groups=8, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(16, 32, 32),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for _ in range(vae_steps):
        x = pixels[torch.randint(len(pixels), (batch,))]
        posterior = vae.encode(x).latent_dist
        loss = (vae.decode(posterior.sample()).sample - x).pow(2).mean() + 1e-5 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vae.eval()
    with torch.no_grad():
        latents = torch.cat([vae.encode(x).latent_dist.mode() for x in pixels[:8192].split(256)])
    scale = 1 / float(latents.std())
    vae.register_to_config(scaling_factor=scale)
    latents = latents * scale

    dit = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=4, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10,
    )  # fmt: skip
    noising = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", prediction_type="v_prediction")
    optimizer = torch.optim.AdamW(dit.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(latents), (batch,))
        x0, eps, t = latents[chosen], torch.randn(batch, 4, 8, 8), torch.randint(1000, (batch,))
        predicted = dit(noising.add_noise(x0, eps, t), timestep=t, class_labels=labels[chosen]).sample
        loss = (predicted - noising.get_velocity(x0, eps, t)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(float(loss))
    DiTPipeline(dit.eval(), vae, noising).save_pretrained(out)
    return losses


def variants(folder: Path, count: int) -> pd.DataFrame:
    """Score of every variant against the pipeline in float32: of final images, and of x0 estimates at three times."""
    options = f"mode=theirs&labels={','.join(map(str, range(10)))}&guidance=1.0&steps=20&batch=16&device=cpu"
    rows = []
    for name, change in VARIANTS.items():
        if "torchao" in change and importlib.util.find_spec("torchao") is None:
            continue
        changed = "&".join(each for each in options.split("&") if each.partition("=")[0] != change.partition("=")[0])
        row: dict[str, object] = {"variant": name}
        for space in ("pixels", "latents"):
            asked = (f"{options}&name=float32", f"{changed}&{change}&name={name}")
            models = [cl.load(f"diffusers:{folder}?{each}&space={space}") for each in asked]
            result = cl.compare(models, count=count, metrics=("mse",)).isel(pair=0).sel(metric="mse")
            last = result.isel(t=-1)
            row |= {
                f"{space}_{end}".rstrip("_"): float(last[f"score{'_' if end else ''}{end}"])
                for end in ("", "low", "high")
            }
            if space == "latents":
                row |= {f"t={t:.2f}": float(result["score"].sel(t=t, method="nearest")) for t in (0.9, 0.5, 0.1)}
        rows.append(row)
    return pd.DataFrame(rows)


def main(
    images: cl.ImageSet, out: Path, vae_steps: int = 400, steps: int = 2000, count: int = 64
) -> tuple[list[float], pd.DataFrame]:
    """Train, save and compare. Returns the losses and the table."""
    losses = train(images, out, vae_steps, steps)
    return losses, variants(out, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", default="fashion-mnist", help="images of 28x28 with ten classes, as cl.load_images takes them"
    )
    parser.add_argument("--out", type=Path, default=Path("pipeline"))
    chosen = parser.parse_args()
    found = cl.load_images(chosen.images)
    losses, table = main(found, chosen.out)
    print(f"loss {sum(losses[-50:]) / 50:.4f}")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
