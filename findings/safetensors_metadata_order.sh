#!/usr/bin/env bash
# The same tensors with the same metadata, saved several times by safetensors, are files of other bytes: the header holds the metadata in an
# order that is drawn anew for every call.
#
# Versions: safetensors 0.8.0, numpy 2.3.5.
# Behaviour: metadata goes through a hash map whose order is random, also within one process and whatever PYTHONHASHSEED says. Tensors are sorted.
# So a digest of the file tells nothing of whether two checkpoints hold the same; with one key, or without metadata, it does. Whoever keeps files
# by their content (caches, git, reproducible builds) puts all into one value, or compares what was read.
# Seen, of 32 files with 6 keys each (the count itself varies; with 6! orders few of them agree):
#   no metadata: 1 content
#   1 key: 1 content
#   6 keys: more than 1 content, what is read is equal: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.3.5
cat > "$folder/try.py" <<'PY'
import hashlib
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

path = f"{sys.argv[1]}/weights.safetensors"
tensors = {"b": np.zeros(4, np.float32), "a": np.ones(4, np.float32)}
for words, metadata in (
    ("no metadata", None),
    ("1 key", {"step": "100"}),
    ("6 keys", {name: name for name in ("step", "seed", "format", "network", "data", "licence")}),
):
    digests, read = set(), set()
    for _ in range(32):
        save_file(tensors, path, metadata)
        with open(path, "rb") as file:
            digests.add(hashlib.sha256(file.read()).hexdigest())
        with safe_open(path, "numpy") as file:
            read.add(str(sorted((file.metadata() or {}).items())))
    several = "1 content" if len(digests) == 1 else f"more than 1 content, what is read is equal: {len(read) == 1}"
    print(f"{words}: {several}")
PY
seen=$(PYTHONHASHSEED=0 "$folder/venv/bin/python" "$folder/try.py" "$folder")
echo "$seen"
expected="no metadata: 1 content
1 key: 1 content
6 keys: more than 1 content, what is read is equal: True"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
