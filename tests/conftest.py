"""What all tests share."""

import gc
import importlib
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# Properties are tried on the same few examples each time, or by `make fuzz` on as many new ones as it says.
examples = int(os.environ.get("CONSISTENCY_LAB_EXAMPLES", "0"))
settings.register_profile("suite", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", max_examples=max(examples, 1), deadline=None, print_blob=True)
settings.load_profile("fuzz" if examples else "suite")

# Workers that run side by side share the cores.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(workers)))

# A figure is thousands of small objects that die together; looking for garbage after every 700 took a sixth of the time of drawing.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    """What was imported stays, so the collector need not look at it again."""
    gc.freeze()


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real images and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CONSISTENCY_LAB_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no assets in {folder}; name their folder in CONSISTENCY_LAB_ASSETS")
    return folder


@pytest.fixture(scope="session")
def results():
    """Small results of ``tests/helpers/real_results.py``: ``results.comparison()``, ``results.difficulty()``, ..."""
    return importlib.import_module("real_results")
