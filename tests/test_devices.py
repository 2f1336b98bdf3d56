"""Where things are computed."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's to say")
def test_what_is_freed_is_kept_for_the_next_tensors():
    code = (
        "import resource, torch\n"
        "from consistency_lab.devices import keep_freed\n"
        "def faults(rounds):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(rounds):\n"
        "        [torch.zeros(2**19, dtype=torch.uint8) + 1 for _ in range(16)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(3)\n"
        "handed_back = faults(10)\n"
        "keep_freed()\n"
        "faults(3)\n"
        "print(handed_back, faults(10))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    handed_back, kept = map(int, done.stdout.split())
    assert kept <= handed_back  # which is much, unless the C library has learned to keep as much by itself
    assert kept < 10 * 16 * 2**19 / 4096 / 10  # a tenth of the pages that were written
