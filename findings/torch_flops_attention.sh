#!/usr/bin/env bash
# torch's FlopCounterMode counts attention on a CPU as nothing, and a whole transformer layer in evaluation mode as nothing.
#
# Versions: torch 2.14.1.
# Behaviour: on a CPU scaled_dot_product_attention runs as _scaled_dot_product_flash_attention_for_cpu, and TransformerEncoderLayer and
# MultiheadAttention in evaluation mode without gradients run as one fused operator each; the counter has a formula for none of the three and
# adds 0 without a warning. The same call on the meta device, or under sdpa_kernel(SDPBackend.MATH), is counted in full. So what a DiT costs
# depends on where it is counted and in which mode: counted on a CPU, samplers of transformers look as good as free.
# Seen:
#   attention: cpu 0, cpu with MATH 4194304, meta 4194304, by hand 4194304
#   encoder layer: training 3145728, evaluation 0
#   evaluation with MATH and no fast path: 3145728, by hand 3145728
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1
cat > "$folder/try.py" <<'PY'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

BATCH, HEADS, LENGTH, WIDTH = 2, 4, 64, 32


def flops(call, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*inputs)
    return counter.get_total_flops()


queries = torch.ones(BATCH, HEADS, LENGTH, WIDTH)
on_cpu = flops(scaled_dot_product_attention, queries, queries, queries)
with sdpa_kernel(SDPBackend.MATH):
    with_math = flops(scaled_dot_product_attention, queries, queries, queries)
shapes = queries.to("meta")
on_meta = flops(scaled_dot_product_attention, shapes, shapes, shapes)
products = 2 * 2 * BATCH * HEADS * LENGTH * LENGTH * WIDTH  # queries with keys, and weights with values
print(f"attention: cpu {on_cpu}, cpu with MATH {with_math}, meta {on_meta}, by hand {products}")

layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
tokens = torch.ones(BATCH, LENGTH, WIDTH)
training = flops(layer.train(), tokens)
evaluation = flops(layer.eval(), tokens)
print(f"encoder layer: training {training}, evaluation {evaluation}")

torch.backends.mha.set_fastpath_enabled(False)
with sdpa_kernel(SDPBackend.MATH):
    slow = flops(layer, tokens)
linear = 2 * BATCH * LENGTH * WIDTH * (4 * WIDTH + 2 * 2 * WIDTH)  # of attention four, of the two layers after it twice as wide
print(f"evaluation with MATH and no fast path: {slow}, by hand {linear + products // HEADS}")
PY
seen=$("$folder/venv/bin/python" -W ignore "$folder/try.py")
echo "$seen"
expected="attention: cpu 0, cpu with MATH 4194304, meta 4194304, by hand 4194304
encoder layer: training 3145728, evaluation 0
evaluation with MATH and no fast path: 3145728, by hand 3145728"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
