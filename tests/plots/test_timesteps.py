import numpy as np
import pytest

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.kinds.registry import figures_of
from consistency_lab.plots.timesteps import audit
from consistency_lab.training.timesteps import audit_timesteps


def test_the_audit_is_drawn_as_it_was_measured(results):
    texts = ["uniform", "clts(width=0.1)", "clts(width=0.3)"]
    ds = audit_timesteps(texts, SCHEDULES.build("linear"), 100, points=5, bands=10)
    ((name, figure, frame),) = figures_of(ds)
    assert name == "audit"
    assert len(frame) == 3 * 5 * 10
    over_t, variation, effective = figure.axes[:3]
    for i, text in enumerate(texts):
        lines = [next(line for line in ax.lines if line.get_label() == text) for ax in (over_t, variation, effective)]
        np.testing.assert_allclose(lines[0].get_ydata(), ds["run_share"][i] * 10)
        np.testing.assert_allclose(lines[1].get_ydata(), ds["total_variation"][i])
        np.testing.assert_allclose(lines[2].get_ydata(), ds["effective_share"][i])
    # Two curricula are told apart by their options, the only uniform one needs none.
    assert {text.get_text() for text in effective.texts} == set(texts)
    with pytest.raises(UserError, match="not 'recipe'"):
        audit(results.recipe())
