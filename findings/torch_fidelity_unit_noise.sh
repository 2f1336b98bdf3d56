#!/usr/bin/env bash
# torch-fidelity's noise "unit" covers one orthant of the sphere: no coordinate is negative, and any two draws are 41 degrees apart, not 90.
#
# Versions: torch-fidelity 0.4.0 (torch 2.13.0, NumPy 2.3.5).
# Behaviour: torch_fidelity.noise.random_unit, registered as z_type "unit" beside "normal" and "uniform_0_1", normalises rng.rand, which is
# uniform in [0, 1), where a point on the sphere is a normalised rng.randn. A generator that was trained on the whole sphere is evaluated on
# 1 / 2^d of it. Metrics of its samples (FID, KID) are of that orthant, and its perceptual path length, the squared distance of two images
# divided by the square of the step between their noises, shrinks with the angle: shown for the identity and "slerp_unit", whose value is the
# mean squared angle. What to do instead: z_type "normal", and a generator that normalises its input.
# Seen:
#   unit: 0.00 of all coordinates negative, mean cosine of two draws 0.75, path length of the identity 0.52
#   normalised normal: 0.50 of all coordinates negative, mean cosine of two draws 0.00, path length of the identity 2.47
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/pip" install --quiet --no-deps torch-fidelity==0.4.0
cat > "$folder/try.py" <<'PY'
import importlib.util
from importlib.metadata import distribution

import numpy as np

# noise.py alone: the package would ask for torchvision as well
file = distribution("torch-fidelity").locate_file("torch_fidelity/noise.py")
spec = importlib.util.spec_from_file_location("noise", file)
noise = importlib.util.module_from_spec(spec)
spec.loader.exec_module(noise)


def normalised(rng, shape):
    return noise.batch_normalize_last_dim(noise.random_normal(rng, shape))


step = 1e-3
for text, draw in (("unit", noise.random_unit), ("normalised normal", normalised)):
    rng = np.random.RandomState(0)
    a, b = (noise.batch_normalize_last_dim(draw(rng, (4000, 512)).double()) for _ in range(2))
    moved = noise.batch_slerp_unit(a, b, step) - a
    length = (moved.square().sum(1) / step**2).mean()
    negative, cosine = (a < 0).double().mean(), abs((a * b).sum(1).mean())
    print(
        f"{text}: {negative:.2f} of all coordinates negative, mean cosine of two draws {cosine:.2f}, "
        f"path length of the identity {length:.2f}"
    )
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="unit: 0.00 of all coordinates negative, mean cosine of two draws 0.75, path length of the identity 0.52
normalised normal: 0.50 of all coordinates negative, mean cosine of two draws 0.00, path length of the identity 2.47"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
