#!/usr/bin/env bash
# Every second column of loss-landscapes' planes is shifted by one point, so a smooth bowl comes out with ripples.
#
# Versions: torch 2.13.0, loss-landscapes 3.0.6.
# Behaviour: planar_interpolation (and random_plane, which has the same loop) moves along the second direction before it evaluates, up one
# column and down the next: even columns hold the points 1 to n, odd ones 0 to n - 1, and the start itself is left out of the first column.
# On a loss that does not depend on the first direction at all, neighbouring columns differ, and the roughness of any surface is overstated.
# linear_interpolation steps before it evaluates too: of n points the first is 1/n of the way, and the start is not among them.
# Seen:
#   plane: [1, 2, 3, 4] [0, 1, 2, 3] [1, 2, 3, 4] [0, 1, 2, 3]     (where each column's points lie along the second direction)
#   columns of one loss differ by 7 of 16
#   line: 1/4 2/4 3/4 4/4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 loss-landscapes==3.0.6 numpy==2.3.5
cat > "$folder/try.py" <<'PY'
import loss_landscapes
import numpy as np
import torch
from loss_landscapes.metrics.metric import Metric

STEPS = 4


class At(Metric):
    """What a function says of the two weights of the model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __call__(self, wrapped):
        first, second = wrapped.get_module_parameters().as_numpy()
        return self.function(float(first), float(second))


def at(first, second):
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[float(first), float(second)]])
    return model


def plane(function):
    ends = at(STEPS, 0), at(0, STEPS)
    return loss_landscapes.planar_interpolation(at(0, 0), *ends, At(function), STEPS, deepcopy_model=True)


print("plane:", *(list(map(int, column.round())) for column in plane(lambda first, second: second)))
bowl = plane(lambda first, second: second**2)
print(f"columns of one loss differ by {np.abs(np.diff(bowl, axis=0)).max():.0f} of {bowl.max():.0f}")
line = loss_landscapes.linear_interpolation(
    at(0, 0), at(0, STEPS), At(lambda first, second: second), STEPS, deepcopy_model=True
)
print("line:", *(f"{point:.0f}/{STEPS}" for point in line))
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="plane: [1, 2, 3, 4] [0, 1, 2, 3] [1, 2, 3, 4] [0, 1, 2, 3]
columns of one loss differ by 7 of 16
line: 1/4 2/4 3/4 4/4"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
