#!/usr/bin/env bash
# smalldiffusion's sampler ends at the least noise of its schedule, not at none: every image keeps that much of its starting noise.
#
# Versions: smalldiffusion 0.5.0 (accelerate 1.15.0).
# Behaviour: samples() goes along schedule.sample_sigmas(steps), whose last level is sigmas[0]; no step leads from there to 0, as in
# diffusers, k-diffusion and EDM. With a perfect denoiser of one image (its own IdealDenoiser) the sample is that image plus sigmas[0]
# times the noise that sampling began with, for any number of steps. To be rid of it, take one more step: x - sigmas[0] * model(x, sigmas[0]).
# Seen:
#   ScheduleDDPM(N=1000), 10 steps: noise left 0.01000, with one more step 0.00000
#   ScheduleDDPM(N=1000), 100 steps: noise left 0.01000, with one more step 0.00000
#   ScheduleLogLinear(N=200), 10 steps: noise left 0.02000, with one more step 0.00000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet smalldiffusion==0.5.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PY'
import torch
from accelerate import Accelerator
from smalldiffusion import IdealDenoiser, ScheduleDDPM, ScheduleLogLinear, samples

torch.manual_seed(0)
image = torch.rand(1, 8, 8) * 2 - 1
model = IdealDenoiser([image])
noise = torch.randn(64, 1, 8, 8)
for text, schedule, steps in (
    ("ScheduleDDPM(N=1000)", ScheduleDDPM(1000), 10),
    ("ScheduleDDPM(N=1000)", ScheduleDDPM(1000), 100),
    ("ScheduleLogLinear(N=200)", ScheduleLogLinear(200), 10),
):
    sigmas = schedule.sample_sigmas(steps)
    start = image + noise * sigmas[0]
    *_, last = samples(model, sigmas, xt=start, accelerator=Accelerator(cpu=True))
    left = ((last - image) * noise).sum() / (noise * noise).sum()
    more = last - sigmas[-1] * model(last, sigmas[-1])
    rest = ((more - image) * noise).sum() / (noise * noise).sum()
    print(f"{text}, {steps} steps: noise left {left:.5f}, with one more step {abs(rest):.5f}")
PY
seen=$("$folder/venv/bin/python" "$folder/try.py")
echo "$seen"
expected="ScheduleDDPM(N=1000), 10 steps: noise left 0.01000, with one more step 0.00000
ScheduleDDPM(N=1000), 100 steps: noise left 0.01000, with one more step 0.00000
ScheduleLogLinear(N=200), 10 steps: noise left 0.02000, with one more step 0.00000"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; before it was:" >&2
  echo "$expected" >&2
  exit 1
fi
