#!/usr/bin/env bash
# `accelerate launch --cpu --num_processes 2` starts one process, without a word.
#
# Versions: accelerate 1.15.0, torch 2.13.0.
# Behaviour: with --cpu the launcher ends in `simple_launcher`, which starts the script once (several only through mpirun) and drops
# --num_processes. The script's Accelerator is made for one process and trains happily on a half of the batch that was meant, or twice as
# long. Without --cpu, `--multi_gpu --num_processes 2` starts two, on a machine without a GPU too.
# Seen:
#   --cpu --num_processes 2: 1 script(s), Accelerator(cpu=True) of 1 process(es), warned False
#   --multi_gpu --num_processes 2: 2 script(s), Accelerator(cpu=True) of 2 process(es), warned False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.3.5
cat > "$folder/script.py" <<'PY'
import os
import sys
from pathlib import Path

from accelerate import Accelerator

Path(sys.argv[1], f"process-{os.getpid()}").write_text(str(Accelerator(cpu=True).num_processes))
PY
seen=""
for options in "--cpu --num_processes 2" "--multi_gpu --num_processes 2"; do
  mkdir -p "$folder/out"
  # Everything else is said, so that nothing is left to a default.
  "$folder/venv/bin/accelerate" launch $options --num_machines 1 --mixed_precision no --dynamo_backend no \
    "$folder/script.py" "$folder/out" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
  warned=$(grep -qi "num_processes" "$folder/said" && echo True || echo False)
  scripts=$(ls "$folder/out" | wc -l)
  seen+="$options: $((scripts)) script(s), Accelerator(cpu=True) of $(cat "$folder"/out/* | head -c 1) process(es), warned $warned
"
  rm -r "$folder/out"
done
seen=${seen%$'\n'}
echo "$seen"
expected="--cpu --num_processes 2: 1 script(s), Accelerator(cpu=True) of 1 process(es), warned False
--multi_gpu --num_processes 2: 2 script(s), Accelerator(cpu=True) of 2 process(es), warned False"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
