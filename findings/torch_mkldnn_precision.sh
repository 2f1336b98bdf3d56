#!/usr/bin/env bash
# Setting the float32 precision of torch's CPU library sets that of CUDA's matrix products and of cuDNN too.
#
# Versions: torch 2.14.1.
# Behaviour: torch.backends.mkldnn.fp32_precision = x is written to torch.backends.fp32_precision, from which every backend that was not set
# itself inherits; torch.backends.cudnn.fp32_precision = x is written to all of CUDA, matrix products included. So "bf16 on the CPU only" cannot be
# asked of oneDNN as a whole, only of mkldnn.matmul, mkldnn.conv and mkldnn.rnn; and asking oneDNN for full float32 forbids TF32 on the GPU.
# Seen:
#   mkldnn ieee: everywhere ieee, cuda.matmul ieee, cudnn.conv ieee
#   mkldnn tf32: everywhere tf32, cuda.matmul tf32, cudnn.conv tf32
#   cudnn ieee: everywhere none, cuda.matmul ieee, cudnn.conv ieee
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1
cat > "$folder/try.py" <<'PY'
import subprocess
import sys

READ = "on.fp32_precision, 'cuda.matmul ' + on.cuda.matmul.fp32_precision, 'cudnn.conv ' + on.cudnn.conv.fp32_precision"
for library, precision in (("mkldnn", "ieee"), ("mkldnn", "tf32"), ("cudnn", "ieee")):
    # Each in a process of its own: what was never set cannot be had back.
    code = f"import torch; on = torch.backends; on.{library}.fp32_precision = {precision!r}; print({READ}, sep=', ')"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    print(f"{library} {precision}: everywhere {done.stdout.strip()}")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="mkldnn ieee: everywhere ieee, cuda.matmul ieee, cudnn.conv ieee
mkldnn tf32: everywhere tf32, cuda.matmul tf32, cudnn.conv tf32
cudnn ieee: everywhere none, cuda.matmul ieee, cudnn.conv ieee"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
