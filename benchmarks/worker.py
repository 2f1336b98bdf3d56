"""One side of a row, asked line by line on the standard input (see `run`): answer FILE, time, peak, end."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from importlib import import_module


def main() -> None:
    row, case, side, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    import numpy as np
    import torch

    torch.set_num_threads(int(threads))
    work = getattr(import_module(row), side)(case)  # what is made beforehand is not timed
    for line in sys.stdin:
        what, _, rest = line.strip().partition(" ")
        if what == "end":
            return
        said: dict[str, float] = {}
        if what == "answer":
            np.savez(rest, **{key: np.asarray(value) for key, value in work().items()})
        elif what == "time":
            gc.collect()
            begin = time.perf_counter()
            work()
            said = {"seconds": time.perf_counter() - begin}
        elif what == "peak":
            said = {"mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
