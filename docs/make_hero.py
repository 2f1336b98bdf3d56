"""Makes figures/zoo.png, the first picture of the README: `python docs/make_hero.py`."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

import consistency_lab as cl
from consistency_lab.plots.gallery import grid
from consistency_lab.store.atomic import atomic_write

FIGURE = Path(__file__).resolve().parents[1] / "figures" / "zoo.png"
ROWS = {
    "unet-s0": "U-Net, seed 0",
    "unet-s1": "U-Net, seed 1",
    "dit-s0": "transformer",
    "mlp-s0": "MLP",
    "gan-s0": "GAN, seed 0",
    "gan-s1": "GAN, seed 1",
    "vae-s0": "VAE, seed 0",
    "vae-s1": "VAE, seed 1",
}
COLUMNS = 12


def main() -> None:
    rows = []
    for name, label in ROWS.items():
        images = cl.load(f"zoo:fashion-{name}", device="cpu").generate(cl.SharedNoise(0), range(COLUMNS))
        rows.append((label, ((images.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()))
    drawn, fewer = io.BytesIO(), io.BytesIO()
    grid(rows, "the same noise in each column", COLUMNS).savefig(drawn, format="png", dpi=110, bbox_inches="tight")
    with Image.open(drawn) as picture:  # it is committed: few greys are enough
        picture.convert("RGB").quantize(32, dither=Image.Dither.NONE).save(fewer, format="png", optimize=True)
    atomic_write(FIGURE, fewer.getvalue())


if __name__ == "__main__":
    main()
