#!/usr/bin/env bash
# cache-dit's PSNR subtracts and squares bytes as bytes: black against white has 48 dB, and images that differ by 16 everywhere count as equal.
#
# Versions: cache-dit 1.5.3 (diffusers 0.42.1, transformers 5.24.0, torch 2.13.0, OpenCV 5.0.0.93, NumPy 2.3.5).
# Behaviour: cache_dit.metrics.metrics.calculate_psnr, the default of `cache-dit-metrics psnr`, takes (a - b) ** 2 of the uint8 arrays that
# cv2.imread returns. Both operations are modulo 256, so an error is right as long as no value differs by more than 15; the mean squared error is
# never above 255 and the PSNR never below 24.07 dB, whatever the images. `--psnr-type skimage` is right.
# The mean over two folders (compute_dir_metric) leaves out pairs of infinite PSNR and reports the number of all pairs; with the first, these
# are also the pairs that differ by 16.
# Seen:
#   off by 15: 24.61 dB, scikit-image 24.61
#   off by 16: inf dB, scikit-image 24.05
#   black and white: 48.13 dB, scikit-image 0.00
#   unrelated noise: 27.85 dB, scikit-image 7.65
#   folders of three pairs off by 16 and one off by 10: 28.13 dB of 4 pairs, scikit-image 25.07
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cache-dit==1.5.3 diffusers==0.42.1 transformers==5.24.0 torch==2.13.0 \
  opencv-python-headless==5.0.0.93 scikit-image==0.26.0 numpy==2.3.5
cat > "$folder/try.py" <<'PY'
import sys
from pathlib import Path

import cv2
import numpy as np
from cache_dit.metrics import compute_psnr
from skimage.metrics import peak_signal_noise_ratio

rng = np.random.default_rng(0)


def flat(value):
    return np.full((64, 64, 3), value, dtype=np.uint8)


def noise():
    return rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def written(name, images):
    (Path(sys.argv[1]) / name).mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(Path(sys.argv[1]) / name / f"{number}.png"), image)
    return str(Path(sys.argv[1]) / name)


def reference(a, b):
    with np.errstate(divide="ignore"):
        return peak_signal_noise_ratio(a, b)


for text, a, b in (
    ("off by 15", flat(100), flat(115)),
    ("off by 16", flat(100), flat(116)),
    ("black and white", flat(0), flat(255)),
    ("unrelated noise", noise(), noise()),
):
    print(f"{text}: {compute_psnr(a, b)[0]:.2f} dB, scikit-image {reference(a, b):.2f}")
true, test = [flat(100)] * 4, [flat(116)] * 3 + [flat(110)]
mean, count = compute_psnr(written("true", true), written("test", test))
right = np.mean([reference(a, b) for a, b in zip(true, test)])
print(f"folders of three pairs off by 16 and one off by 10: {mean:.2f} dB of {count} pairs, scikit-image {right:.2f}")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py" "$folder" 2> "$folder/log") || { cat "$folder/log" >&2; exit 1; }
echo "$seen"
expected="off by 15: 24.61 dB, scikit-image 24.61
off by 16: inf dB, scikit-image 24.05
black and white: 48.13 dB, scikit-image 0.00
unrelated noise: 27.85 dB, scikit-image 7.65
folders of three pairs off by 16 and one off by 10: 28.13 dB of 4 pairs, scikit-image 25.07"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
