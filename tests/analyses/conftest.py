import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    """A script by name, importable as it is when it is run: with its own folder first on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "analyses"))
    yield importlib.import_module
    for path in (ROOT / "analyses").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="session")
def builders():
    spec = importlib.util.spec_from_file_location("analyses_builders", Path(__file__).with_name("builders.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made(builders, tmp_path_factory):
    """Rows of every study and two races; not to be changed."""
    return builders.everything(tmp_path_factory.mktemp("rows"))
