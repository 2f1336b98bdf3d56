import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def scripts():
    """Scripts by name, importable as they are when they are run: with their own folder first on the path."""
    folder = ROOT / "analyses"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)


@pytest.fixture
def script():
    with scripts() as load:
        yield load


@pytest.fixture(scope="session")
def builders():
    spec = importlib.util.spec_from_file_location("analyses_builders", Path(__file__).with_name("builders.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Where the results behind the made-up rows are."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def made(builders, store, tmp_path_factory):
    """Rows of every study, two races, and committed curves and images; not to be changed."""
    root = builders.everything(tmp_path_factory.mktemp("rows"))
    builders.results(root, store)
    with scripts() as load:
        builders.commit(root, store, load)
    return root
