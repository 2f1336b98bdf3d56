"""Two folders of images of 512x512, compared with MSE, SSIM and LPIPS-squeeze, report included: how long, and how much memory?

    python benchmarks/folders.py --folder /tmp/pictures --count 2000 --weights squeezenet1_1-b8a52dc0.pth

The images are smooth random fields; the candidate's differ from the reference's by a weaker field. They are made in a process of their own,
so that the peak of the resident set is that of the comparison. Only the CPU is used; images that are there already are not made again.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def make(folder: Path, count: int, side: int) -> None:
    """``ref/00000.png`` ... and ``cand/00000.png`` ..."""
    from PIL import Image

    for name in ("ref", "cand"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        field, other = (_smooth(rng.normal(size=(3, 12, 12)), side) for _ in range(2))
        for name, image in (("ref", field), ("cand", field + 0.12 * other)):
            path = folder / name / f"{i:05d}.png"
            if not path.exists():
                pixels = np.clip(127.5 + 60 * image, 0, 255).round().astype(np.uint8)
                Image.fromarray(pixels.transpose(1, 2, 0)).save(path, compress_level=1)


def _smooth(coarse: np.ndarray, side: int) -> np.ndarray:
    import torch

    large = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None], (side, side), mode="bicubic")
    return large[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--weights", default="", help="of squeezenet1_1, torchvision's; without them LPIPS is left out")
    parser.add_argument("--only-make", action="store_true")
    chosen = parser.parse_args()
    if chosen.only_make:
        make(chosen.folder, chosen.count, chosen.side)
        return
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only-make"], check=True)
    import consistency_lab as cl

    start = time.perf_counter()
    metrics = ["mse", "ssim"] + ([f"lpips-squeeze(weights={chosen.weights!r})"] if chosen.weights else [])
    result = cl.compare([cl.load_folder_model(chosen.folder / name) for name in ("ref", "cand")], metrics=metrics)
    cl.save_result(result, chosen.folder / "comparison.nc")
    cl.report([result], chosen.folder / "report.html")
    for metric in result["metric"].values:
        low, score, high = (
            float(result[f"family_score{end}"].isel(t=-1).sel(metric=metric)) for end in ("_low", "", "_high")
        )
        print(f"{metric}: score {score:.4f} ({low:.4f} to {high:.4f})")
    blocks = int(result["block"].max()) + 1 if "block" in result.coords else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"{result.sizes['sample']} samples in {blocks} blocks, {time.perf_counter() - start:.0f} s, peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
