#!/usr/bin/env bash
# fsspec removes, copies and moves by pattern: the name of a folder that holds brackets stands for another folder, and that one is removed.
#
# Versions: fsspec 2026.9.0.
# Behaviour: rm, cp and mv of AbstractFileSystem take a single path for a glob whenever it holds *, ? or [, although that path exists.
# rm("runs/seed[1]", recursive=True) removes runs/seed1, which was not named, and leaves runs/seed[1]; without a runs/seed1 it raises
# FileNotFoundError for a path that exists. The local file system has an rm and mv of its own, which take names as they are, so code that
# was tried on local files does something else on memory, and on every file system without methods of its own. rm_file and cp_file take names.
# Seen:
#   memory: left runs/seed[1]/w
#   memory, rm_file: left runs/seed1/w
#   local: left seed1
#   memory, mv: FileNotFoundError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fsspec==2026.9.0
cat > "$folder/try.py" <<'PY'
import os
import tempfile

import fsspec


def two_runs():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("seed[1]", "seed1"):
        fs.pipe_file(f"/runs/{name}/w", b"weights")
    return fs


def left(fs):
    return " ".join(path.lstrip("/") for path in fs.find("/runs"))


fs = two_runs()
fs.rm("/runs/seed[1]", recursive=True)
print("memory: left", left(fs))
fs = two_runs()
fs.rm_file("/runs/seed[1]/w")
print("memory, rm_file: left", left(fs))
with tempfile.TemporaryDirectory() as place:
    for name in ("seed[1]", "seed1"):
        os.mkdir(os.path.join(place, name))
    fsspec.filesystem("file").rm(os.path.join(place, "seed[1]"), recursive=True)
    print("local: left", *os.listdir(place))
fs = two_runs()
fs.rm_file("/runs/seed1/w")
try:
    fs.mv("/runs/seed[1]/w", "/runs/moved")
    print("memory, mv:", left(fs))
except FileNotFoundError as error:
    print("memory, mv:", type(error).__name__)
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="memory: left runs/seed[1]/w
memory, rm_file: left runs/seed1/w
local: left seed1
memory, mv: FileNotFoundError"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
