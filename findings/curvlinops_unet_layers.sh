#!/usr/bin/env bash
# curvlinops has no Hessian of a diffusion U-Net: torch cannot differentiate the backward passes of SiLU and GroupNorm forwards.
#
# Versions: curvlinops-for-pytorch 3.0.1, torch 2.14.1.
# Behaviour: HessianLinearOperator multiplies by forward over reverse differentiation and does so once when it is made, to check that it is
# deterministic. silu_backward and native_group_norm_backward have no forward derivative in torch, those of tanh, ReLU, GELU and layer norm have:
# of the layers that are used in pairs in nearly every diffusion U-Net neither works. torch differentiates both twice in reverse (double_backward).
# Seen:
#   Tanh: Hessian (104, 104), twice in reverse
#   ReLU: Hessian (104, 104), twice in reverse
#   GELU: Hessian (104, 104), twice in reverse
#   SiLU: NotImplementedError aten::silu_backward, twice in reverse
#   LayerNorm: Hessian (114, 114), twice in reverse
#   GroupNorm: NotImplementedError aten::native_group_norm_backward, twice in reverse
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 curvlinops-for-pytorch==3.0.1
cat > "$folder/try.py" <<'PY'
import re
import warnings

import torch
from curvlinops import HessianLinearOperator
from torch import nn

warnings.filterwarnings("ignore")
torch.manual_seed(0)
x, y = torch.randn(8, 4, 5), torch.randn(8, 4, 5)
for layer in (nn.Tanh(), nn.ReLU(), nn.GELU(), nn.SiLU(), nn.LayerNorm(5), nn.GroupNorm(2, 4)):
    net = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), layer, nn.Conv1d(4, 4, 3, padding=1))
    weights = list(net.parameters())
    try:
        found = f"Hessian {tuple(HessianLinearOperator(net, nn.MSELoss(), weights, [(x, y)]).shape)}"
    except NotImplementedError as error:
        found = "NotImplementedError " + re.search(r"aten::\w+", str(error))[0]
    gradients = torch.autograd.grad(nn.functional.mse_loss(net(x), y), weights, create_graph=True)
    torch.autograd.grad(sum(g.sum() for g in gradients), weights)
    print(f"{type(layer).__name__}: {found}, twice in reverse")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="Tanh: Hessian (104, 104), twice in reverse
ReLU: Hessian (104, 104), twice in reverse
GELU: Hessian (104, 104), twice in reverse
SiLU: NotImplementedError aten::silu_backward, twice in reverse
LayerNorm: Hessian (114, 114), twice in reverse
GroupNorm: NotImplementedError aten::native_group_norm_backward, twice in reverse"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
