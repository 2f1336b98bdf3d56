"""What the tests of commands share: two small models in a store."""

import pytest

from consistency_lab.cli import main
from consistency_lab.reports import folder

TINY = ("--network", "mlp(width=16, depth=1)", "--steps", "30", "--batch", "32", "--quiet", "--device", "cpu")


@pytest.fixture(scope="session")
def tiny():
    """Options with which training takes no time."""
    return TINY


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A store with mlp-s0 and mlp-s1; tests only read it."""
    store = tmp_path_factory.mktemp("cli") / "runs"
    assert main(["train", *TINY, "--seeds", "0-1", "--store", str(store)]) == 0
    return store


@pytest.fixture
def undrawn(monkeypatch):
    """For what is not about figures and pages, which take most of a command's time: results are written without them.

    `test_workflow.py` draws them.
    """
    monkeypatch.setattr(folder, "figures_of", lambda result: [])
    monkeypatch.setattr(folder, "report", lambda results, path, title: path.write_text(title))
