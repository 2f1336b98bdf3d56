"""Models whose images are known in closed form, and two that were trained."""

import pytest
from painter import Painter

import consistency_lab as cl


@pytest.fixture
def paint():
    return Painter


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Two tiny models of other seeds, and their store."""
    store = tmp_path_factory.mktemp("gate-runs")
    digits = cl.load_images("digits").take(range(64), "few digits")
    small = {"network": "mlp(width=32, depth=1)", "steps": 200, "batch": 16, "device": "cpu", "progress": False}
    return [cl.train(digits, seed=seed, store=store, **small) for seed in (0, 1)], store
