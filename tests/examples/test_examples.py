"""The worked scripts run, learn, and use what they show."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
OTHERS = [{"momentum": "constant"}, {"timesteps": "uniform"}]


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(
    ("name", "tiny"),
    [
        ("plain_loop", {"steps": 80, "batch": 32, "width": 64}),
        ("diffusers_loop", {"steps": 25, "batch": 16, "channels": 16}),
    ],
)
def test_example_learns_and_its_pieces_matter(name, tiny):
    if name == "diffusers_loop":
        pytest.importorskip("diffusers")
    main = script(name)
    losses = main(**tiny)
    assert len(losses) == tiny["steps"]
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:4])
    few = {**tiny, "steps": 6}
    losses, *others = (main(**few, **change) for change in ({}, *OTHERS))
    assert main(**few) == losses
    assert losses not in others
    adaptive = main(**few, timesteps="loss_second_moment(cells=2, history=3)")
    assert adaptive != others[1]  # it has been told the losses; the other draws uniformly, as it would without
