import json

import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings


def test_python_and_file_agree(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"network": "dit(depth=3)", "lr": 1, "seed": 2**40}))
    assert TrainingSettings.read(path) == TrainingSettings.of(network="dit(depth=3)", lr=1.0, seed=2**40)


def test_streams_follow_the_seed_unless_set():
    assert TrainingSettings(seed=3).seeds == {"init": 3, "order": 3, "noise": 3}
    assert TrainingSettings(seed=3, order_seed=0).seeds == {"init": 3, "order": 0, "noise": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"netwrok": "unet"}, "Did you mean 'network'"),
        ({"steps": "10"}, "steps"),
        ({"steps": 0}, "above 0"),
        ({"lr": -1.0}, "above 0"),
        ({"lr": float("nan")}, "above 0"),
        ({"seed": -1}, "0 or more"),
        ({"steps": 1.5}, "steps"),
        ({"steps": 8.0}, r"steps: 8\.0 is not a whole number"),
        ({"lr": "fast"}, "lr: 'fast' is not a number"),
        ({"seed": 2**70}, r"seed must be a whole number from 0 to 2\^64 - 1, not 1180591620717411303424"),
        ({"init_seed": 2**64}, "init_seed must be a whole number from 0"),
        ({"steps": True}, "steps"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainingSettings.of(**settings)


def test_numbers_of_numpy_are_taken_for_pythons():
    given = {"seed": np.int64(3), "steps": np.uint8(9), "lr": np.float32(0.5), "conditional": np.bool_(True)}
    settings = TrainingSettings.of(**given)
    assert settings == TrainingSettings.of(seed=3, steps=9, lr=0.5, conditional=True)
    assert [type(getattr(settings, key)) for key in given] == [int, int, float, bool]
    assert TrainingSettings.of(seed=2**64 - 1).seeds["init"] == 2**64 - 1


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_files_that_hold_no_settings_are_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match=r"s\.json"):
        TrainingSettings.read(tmp_path / "s.json")
    with pytest.raises(UserError, match="cannot read"):
        TrainingSettings.read(tmp_path / "missing.json")
