#!/usr/bin/env bash
# Tensors that safetensors has loaded change when their file is written over, although nothing in the program touches them.
#
# Versions: safetensors 0.8.0, torch 2.14.1, numpy 2.3.5.
# Behaviour: safetensors.torch.load_file and safe_open(...).get_tensor give tensors whose memory is the file, mapped; they are writable, and
# what is written to them does not reach the file. But whoever writes the file over in place (cp, rsync --inplace, a download into the same
# name, open(path, "r+b")) writes into the loaded weights too. A file that is replaced by a rename, and safetensors.numpy.load_file, which
# copies, leave them alone. Weights that are to stay what they were when they were checked are cloned, or copied into a module at once.
# Seen:
#   load_file: 0.0 before, 1.0 after
#   get_tensor: 0.0 before, 1.0 after
#   get_tensor, file replaced by a rename: 0.0 before, 0.0 after
#   numpy.load_file: 0.0 before, 0.0 after
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 safetensors==0.8.0 numpy==2.3.5
cat > "$folder/try.py" <<'PY'
import os
import sys

import safetensors.numpy
import safetensors.torch
import torch

path = os.path.join(sys.argv[1], "weights.safetensors")
READERS = {
    "load_file": lambda: safetensors.torch.load_file(path)["w"],
    "get_tensor": lambda: safetensors.safe_open(path, "pt").get_tensor("w"),
    "get_tensor, file replaced by a rename": lambda: safetensors.safe_open(path, "pt").get_tensor("w"),
    "numpy.load_file": lambda: safetensors.numpy.load_file(path)["w"],
}
ones = safetensors.torch.save({"w": torch.ones(4096)})
for name, read in READERS.items():
    safetensors.torch.save_file({"w": torch.zeros(4096)}, path)
    weights = read()
    before = float(weights[0])
    if "rename" in name:
        with open(f"{path}.new", "wb") as file:
            file.write(ones)
        os.replace(f"{path}.new", path)
    else:
        with open(path, "r+b") as file:
            file.write(ones)
    print(f"{name}: {before} before, {float(weights[0])} after")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py" "$folder")
echo "$seen"
expected="load_file: 0.0 before, 1.0 after
get_tensor: 0.0 before, 1.0 after
get_tensor, file replaced by a rename: 0.0 before, 0.0 after
numpy.load_file: 0.0 before, 0.0 after"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
