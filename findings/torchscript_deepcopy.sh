#!/usr/bin/env bash
# A deep copy of a TorchScript module has parameters that are no leaves of the autograd graph, so nothing that walks weights on a copy works.
#
# Versions: torch 2.13.0, loss-landscapes 3.0.6.
# Behaviour: copy.deepcopy of an eager module keeps its parameters leaves; of torch.jit.script or torch.jit.trace of the same module every
# parameter of the copy has a grad_fn (CloneBackward0). requires_grad_ on them raises, and so does
# loss_landscapes.linear_interpolation(..., deepcopy_model=True), the setting that spares the caller's own weights. Under torch.no_grad the
# copy's parameters are leaves, but no longer ask for gradients.
# Seen:
#   eager: leaves True, interpolation of 4 points
#   script: leaves False CloneBackward0, interpolation raises RuntimeError
#   trace: leaves False CloneBackward0, interpolation raises RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 loss-landscapes==3.0.6 numpy==2.3.5
cat > "$folder/try.py" <<'PY'
import copy
import warnings

import loss_landscapes
import torch
from loss_landscapes.metrics import Loss

warnings.filterwarnings("ignore")
torch.manual_seed(0)
x, y = torch.randn(16, 4), torch.randn(16, 1)


def net():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()


for kind, make in (("eager", lambda m: m), ("script", torch.jit.script), ("trace", lambda m: torch.jit.trace(m, x))):
    start, end = make(net()), make(net())
    parameters = list(copy.deepcopy(start).parameters())
    leaves = all(p.is_leaf for p in parameters)
    why = "" if leaves else f" {type(parameters[0].grad_fn).__name__}"
    try:
        points = loss_landscapes.linear_interpolation(
            start, end, Loss(torch.nn.MSELoss(), x, y), 4, deepcopy_model=True
        )
        found = f"of {len(points)} points"
    except RuntimeError as error:
        found = f"raises {type(error).__name__}"
    print(f"{kind}: leaves {leaves}{why}, interpolation {found}")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="eager: leaves True, interpolation of 4 points
script: leaves False CloneBackward0, interpolation raises RuntimeError
trace: leaves False CloneBackward0, interpolation raises RuntimeError"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
