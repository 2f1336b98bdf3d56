"""What is registered is tested: the tests of a registry are collected with an entry that no list in them names."""

import pytest
from registered import asked_of, entries, module_of

from consistency_lab.choices import Registry
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.metrics.distances import METRICS
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.training.momentum import MOMENTUM_RULES
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.weighting import WEIGHTINGS

SUITES = {
    "diffusion/test_schedule.py": (SCHEDULES, "flow"),
    "metrics/test_distances.py": (METRICS, "mse"),
    "networks/test_registry.py": (NETWORKS, "mlp"),
    "training/test_momentum.py": (MOMENTUM_RULES, "constant"),
    "training/test_timesteps.py": (TIMESTEPS, "uniform"),
    "training/test_weighting.py": (WEIGHTINGS, "p2"),
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_new_entry_runs_the_tests_of_its_registry(suite, monkeypatch):
    assert not list(asked_of(module_of(suite), "of my own"))
    registry, like = SUITES[suite]
    monkeypatch.setitem(registry._builders, "of my own", registry.builder(like))
    assert list(asked_of(module_of(suite), "of my own"))


def test_variants_stand_for_what_they_are_variants_of():
    registry = Registry("thing", {"a": lambda: 1, "b": lambda *, size=3: size, "c": lambda *, size: size})
    assert entries(registry, ["b(size=1)", "c(size=2)"]) == ["a", "b(size=1)", "c(size=2)"]
    assert entries(registry, ["b", "b(size=1)"], without={"c"}) == ["a", "b", "b(size=1)"]
    with pytest.raises(AssertionError, match="'c' needs"):
        entries(registry)
    with pytest.raises(AssertionError, match="not registered"):
        entries(registry, ["d(size=1)"])
