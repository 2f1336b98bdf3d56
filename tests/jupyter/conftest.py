"""Gives the tests of this room the made-up results of ``tests/results_builders.py``."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def results():
    """The module of builders: ``results.comparison()``, ``results.difficulty()``, ..."""
    spec = importlib.util.spec_from_file_location("results_builders", Path(__file__).parents[1] / "results_builders.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
