"""What sentences about wrong input say: the nearest path, the name here of what others call otherwise, values cut short."""

import numpy as np
import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError, nearest_path, short, unknown_name
from consistency_lab.interop.files import refuse_weights
from consistency_lab.interop.times import TIMES


class Plain(nn.Module):
    def forward(self, x, t):
        return x * t[:, None, None, None]


def wrapped(**options):
    usual = {"schedule": "linear", "predicts": "eps", "shape": (1, 4, 4), "time": "unit", "name": "plain"}
    return cl.wrap_module(Plain(), **{**usual, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "ddpm"}, "unknown schedule 'ddpm'. It is called 'linear' here."),
        ({"schedule": "squaredcos_cap_v2"}, "It is called 'cosine' here."),
        ({"schedule": "linaer"}, "Did you mean 'linear'?"),
        ({"time": "timestep"}, "unknown time 'timestep'. It is called 'index' here."),
        ({"predicts": "epsilon"}, "It is called 'eps' here."),
        ({"predicts": "x_start"}, "It is called 'x0' here."),
    ],
)
def test_what_others_call_otherwise_is_told_by_its_name_here(options, said):
    with pytest.raises(UserError) as told:
        wrapped(**options)
    assert said in str(told.value)


@pytest.mark.parametrize("registry", [SCHEDULES, PREDICTIONS, TIMES])
def test_such_names_lead_to_names_and_are_none(registry):
    for theirs, ours in registry._elsewhere.items():
        assert ours in registry.names()
        assert theirs not in registry.names()
        assert theirs == theirs.lower().replace("_", "-")


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": ["a"] * 1000},
        {"schedule": np.array([object()] * 1000)},
        {"schedule": {"betas": [0.1] * 1000}},
        {"schedule": str([0.1] * 1000)},
        {"time": torch.rand(1000)},
        {"shape": torch.rand(1000)},
        {"value_range": list(range(1000))},
        {"predicts": torch.rand(1000)},
        {"device": torch.rand(1000)},
    ],
)
def test_a_wrong_value_of_a_thousand_numbers_is_told_in_a_short_sentence(options):
    with pytest.raises(UserError) as told:
        wrapped(**options)
    assert len(str(told.value)) < 400


def test_short_values_are_shown_whole():
    for value in ("digits", 3, -0.5, None, (1, 2), "a" * 100, {"a": [1]}):
        assert short(value) == repr(value)
    assert short(torch.zeros(2, 3)) == "Tensor of shape (2, 3)"
    assert short(torch.tensor(1.5)) == repr(torch.tensor(1.5))


def test_the_nearest_path_that_is_there(tmp_path):
    (tmp_path / "cand" / "deep").mkdir(parents=True)
    assert nearest_path(tmp_path / "cnd") == f" Did you mean {str(tmp_path / 'cand')!r}?"
    assert nearest_path(tmp_path / "cnd" / "deep") == f" Did you mean {str(tmp_path / 'cand' / 'deep')!r}?"
    assert nearest_path(tmp_path / "cnd" / "absent") == ""
    assert nearest_path(tmp_path / "reference") == ""
    assert nearest_path(tmp_path / "cand") == ""
    assert nearest_path("\0") == ""
    with pytest.raises(UserError, match=r"there is no file or folder .*cnd.* Did you mean '.*cand'\?"):
        cl.load_images(f"{tmp_path}/cnd")


def test_an_unknown_name_says_where_it_was_looked_for():
    error = unknown_name("model", "b", ["a"], where="in the store runs")
    assert str(error) == "unknown model 'b'. Known in the store runs: a."


def test_what_must_be_said_of_a_file_of_weights_is_listed(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError) as told:
        refuse_weights(tmp_path / "net.pt")
    with pytest.raises(UserError) as asked:
        cl.load(f"torchscript:{tmp_path}/net.pt")
    for error in (told, asked):
        assert "time one of index, reversed, sigma, unit" in str(error.value)
        assert "schedule is one of cosine, edm, flow, linear" in str(error.value)
