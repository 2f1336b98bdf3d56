"""What is taken out of a checkpoint: averaged weights, without wrappers, without optimizers."""

import argparse

import pytest
import safetensors.torch
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.interop.states import load_state


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.register_buffer("sigmas", torch.rand(7))
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)


def with_prefix(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def trained(net):
    """Its parameters that are trained, moved by one."""
    return [p.detach() + 1 for p in net.parameters() if p.requires_grad]


def saved(content, path):
    torch.save(content, path)
    return path


def assert_loads(state, net, expected):
    other = Net()
    other.load_state_dict(state)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


NET = Net()
PLAIN = NET.state_dict()
AVERAGE = {key: value + 1 if value.is_floating_point() else value for key, value in PLAIN.items()}
ADAM = {"state": {0: {"exp_avg": torch.zeros(4, 4)}}, "param_groups": [{"lr": 1e-3}]}
CHECKPOINTS = {
    "bare": PLAIN,
    "data parallel": {"state_dict": with_prefix(PLAIN, "module."), "optimizer": ADAM},
    "compiled": {"model": with_prefix(PLAIN, "_orig_mod.module."), "opt": ADAM, "scaler": None, "epoch": 3},
    "DiT": {"model": PLAIN, "ema": AVERAGE, "opt": ADAM, "args": argparse.Namespace(lr=1e-3, model="DiT-S/2")},
    "torchcfm": {
        "net_model": with_prefix(PLAIN, "module."),
        "ema_model": AVERAGE,
        "sched": ADAM,
        "optim": ADAM,
        "step": 9,
    },
    "ema-pytorch": {
        **with_prefix(PLAIN, "online_model."),
        **with_prefix(AVERAGE, "ema_model."),
        "initted": torch.tensor(True),
        "step": torch.tensor(10),
    },
    "ema-pytorch alone": {
        **with_prefix(AVERAGE, "ema_model."),
        "initted": torch.tensor(True),
        "step": torch.tensor(10),
    },
    "swa_utils": {"n_averaged": torch.tensor(3), **with_prefix(PLAIN, "module.")},
    "averages in a wrapper": {"state_dict": with_prefix(AVERAGE, "module.ema.")},
    "both in a wrapper": {**with_prefix(PLAIN, "module.model."), **with_prefix(AVERAGE, "module.ema.module.")},
    "averages under three wrappers": with_prefix(AVERAGE, "_orig_mod.averaged_model.module."),
    "lightning": {
        "state_dict": {**with_prefix(PLAIN, "net."), **with_prefix(AVERAGE, "net_ema.")},
        "optimizer_states": [ADAM],
    },
}


@pytest.mark.parametrize("key", CHECKPOINTS)
def test_the_wrappers_come_off(key, tmp_path):
    state = load_state(saved(CHECKPOINTS[key], tmp_path / "x.pt"))
    averaged = key not in ("bare", "data parallel", "compiled", "swa_utils")
    assert state.averaged == averaged
    assert_loads(state, NET, AVERAGE if averaged else PLAIN)
    assert not any("exp_avg" in name for name in state)


@pytest.mark.parametrize("key", ["DiT", "torchcfm", "ema-pytorch", "both in a wrapper", "lightning", "bare"])
def test_the_weights_as_trained(key, tmp_path):
    state = load_state(saved(CHECKPOINTS[key], tmp_path / "x.pt"), ema=False)
    assert not state.averaged
    assert_loads(state, NET, PLAIN)


def test_averages_without_names_get_those_of_the_network(tmp_path):
    # As score_sde keeps them; what is not trained (a Fourier matrix, buffers) is that of the network.
    ema = {"decay": 0.9999, "num_updates": 5, "shadow_params": trained(NET)}
    file = saved({"model": with_prefix(PLAIN, "module."), "ema": ema, "optimizer": ADAM, "step": 5}, tmp_path / "x.pth")
    state = load_state(file)
    names = {key for key, p in NET.named_parameters() if p.requires_grad}
    assert_loads(state, NET, {key: value + 1 if key in names else value for key, value in PLAIN.items()})
    assert "['ema']['shadow_params']" in state.kept
    assert_loads(load_state(file, ema=False), NET, PLAIN)


def test_averages_that_fit_in_two_ways_get_no_names(tmp_path):
    net = {"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(3, 3)}
    file = saved({"model": net, "ema": {"shadow_params": [torch.ones(3, 3)]}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="in no way or in several"):
        load_state(file)
    assert set(load_state(file, ema=False)) == set(net)


def test_what_was_dropped_is_said(tmp_path):
    file = saved(CHECKPOINTS["DiT"], tmp_path / "x.pt")
    said = str(load_state(file))
    assert said == "averaged weights under ['ema']; dropped: weights under ['model'], ['opt'], ['args']"
    assert_loads(load_state(file, ema="model"), NET, PLAIN)
    with pytest.raises(UserError, match=r"no weights under 'emma'; it holds some under ema, model|model, ema"):
        load_state(file, ema="emma")


def test_a_schedule_that_lies_around_the_network_is_kept_beside_it(tmp_path):
    around = {"betas": torch.rand(10), "loss_weight": torch.rand(10)}
    content = {"model": {**around, **with_prefix(PLAIN, "model.")}}
    state = load_state(saved(content, tmp_path / "x.pt"))
    assert_loads(state, NET, PLAIN)
    assert set(state.beside) == set(around)
    # A parameter of the network's own is no bookkeeping, and then the prefix is the network's too.
    own = {"scale": torch.ones(3), **with_prefix(PLAIN, "net.")}
    assert set(load_state(saved(own, tmp_path / "y.pt"))) == set(own)


def test_the_prefix_can_be_said(tmp_path):
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file(with_prefix(PLAIN, "model."), file)
    assert set(load_state(file)) == set(PLAIN)
    assert set(load_state(file, prefix="")) == {f"model.{key}" for key in PLAIN}
    assert "weight" in load_state(file, prefix="model.first.")
    with pytest.raises(UserError, match="begins with 'nothing'"):
        load_state(file, prefix="nothing")


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_state(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="averaged weights alone"):
        load_state(saved({"ema": AVERAGE}, tmp_path / "x.pt"), ema=False)
    with pytest.raises(UserError, match="holds no named tensors"):
        load_state(saved({"opt": ADAM}, tmp_path / "y.pt"))
    with pytest.raises(UserError, match="stays closed"):
        load_state(saved({"ema": Net()}, tmp_path / "z.pt"))


@pytest.mark.parametrize("how", ["a key that is nowhere", "a pickle of a list", "nothing but a header"])
def test_a_file_of_the_old_format_whose_parts_do_not_fit_is_named(tmp_path, how):
    path = tmp_path / "old.pth"
    torch.save({"a.weight": torch.eye(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    if how == "a key that is nowhere":  # the last list of keys, which torch checks by an assertion
        at = content.rindex(b"]q") if b"]q" in content else len(content) // 2
        content = content[: at + 8] + bytes([content[at + 8] ^ 1]) + content[at + 9 :]
    path.write_bytes({"a pickle of a list": b"\x80\x02]q\x00.", "nothing but a header": content[:30]}.get(how, content))
    with pytest.raises(UserError, match=r"old\.pth"):
        load_state(path)
