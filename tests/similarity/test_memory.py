import itertools
import subprocess
import sys

import pytest

from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.memory import expected_memory

MSE = [METRICS.build("mse")]
SHAPE = (3, 32, 32)


def test_what_fits_is_one_block_and_beyond_that_only_what_is_kept_grows():
    sizes = [expected_memory(SHAPE, count, 4, MSE, levels=3) for count in (256, 1024, 2**14, 2**15, 2**16)]
    assert [size.blocks for size in sizes[:2]] == [1, 1]
    assert len({size.block for size in sizes[2:]}) == 1
    assert sizes[1].peak > 3 * sizes[0].peak
    kept = 8 * (3 * (2 * 6 + 4) + 2 * 4) + 4 * 16 * 6  # pairs, ceiling, single distances of other noise: bytes a sample
    assert [b.peak - a.peak for a, b in itertools.pairwise(sizes[2:])] == [kept * 2**14, kept * 2**15]
    many = [
        expected_memory(SHAPE, count, 8, MSE, levels=5).peak for count in (2**17, 2**18)
    ]  # where scores take more than a block
    assert many[1] - many[0] == 2.2 * 2**17 * (8 * (5 * (2 * 28 + 8) + 2 * 8) + 4 * 16 * 28)
    assert str(sizes[0]).endswith("MiB beside the program, models and images")
    assert "1024 samples at a time" in str(sizes[2])


def test_twelve_models_at_64x64_stay_below_four_gib():
    three = [METRICS.build(name) for name in ("mse", "psnr", "cosine")]
    assert expected_memory((3, 64, 64), 20_000, 12, three).peak < 4 * 2**30


MEASURED = """
import sys
import torch
import consistency_lab as cl

class Small(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.1 + 0.01 * seed))
    def forward(self, x, t):
        return x * t.sqrt()[:, None, None, None] * (1 + self.scale)

def now(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return 1024 * int(line.split()[1])

models, count, levels = map(int, sys.argv[1:])
options = dict(schedule="linear", predicts="eps", shape=(3, 32, 32), time="unit")
models = [cl.wrap_module(Small(k), name=f"m{k}", **options) for k in range(models)]
cl.compare(models, count=8, sampler="ddim(steps=2)", levels=2, metrics=["mse"])
before = now("VmRSS")
cl.compare(models, count=count, sampler=f"ddim(steps={levels})", levels=levels, metrics=["mse"], shown=4)
print(now("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(("models", "count", "levels"), [(2, 512, 3), (4, 1024, 4), (4, 4096, 3)])
def test_it_is_the_measured_peak(models, count, levels):
    numbers = [str(number) for number in (models, count, levels)]
    done = subprocess.run([sys.executable, "-c", MEASURED, *numbers], capture_output=True, text=True, check=True)
    expected = expected_memory(SHAPE, count, models, MSE, levels=levels).peak
    assert 0.75 * expected < int(done.stdout) < 1.25 * expected
