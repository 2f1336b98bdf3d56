import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.store.checkpoint import load_state, load_tensors, load_weights, save_state, save_tensors


def test_tensors_and_metadata_round_trip_to_the_bit(tmp_path):
    tensors = {
        "float": torch.tensor([[1 / 3, float("nan")], [float("inf"), -0.0]]),
        "double": torch.rand(3, dtype=torch.float64),
        "half": torch.rand(3, 2).to(torch.bfloat16),
        "count": torch.tensor(2**40),
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "learned": nn.Parameter(torch.ones(2)),
    }
    metadata = {"seed": 2**40, "nested": {"a": [1, None, "ä"]}, "rate": 0.1}
    save_tensors(tmp_path / "weights.safetensors", tensors, metadata)
    loaded, facts = load_tensors(tmp_path / "weights.safetensors")
    assert facts == metadata
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)


def test_tensors_that_share_storage_are_stored_apart(tmp_path):
    whole = torch.arange(10.0)
    tied = nn.Linear(2, 2)
    tensors = {"whole": whole, "slice": whole[2:5], "again": whole, "a": tied.weight, "b": tied.weight}
    save_tensors(tmp_path / "w.safetensors", tensors, {})
    loaded, _ = load_tensors(tmp_path / "w.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
    loaded["whole"].zero_()
    assert torch.equal(loaded["slice"], whole[2:5])


def test_saving_changes_nothing_of_the_callers(tmp_path):
    weight = nn.Parameter(torch.rand(3, 4).T)
    stride, before = weight.stride(), weight.detach().clone()
    save_tensors(tmp_path / "w.safetensors", {"w": weight}, {})
    assert weight.stride() == stride
    assert weight.requires_grad
    assert torch.equal(weight, before)


def test_no_tensors_and_files_of_other_origin(tmp_path):
    import safetensors.torch

    save_tensors(tmp_path / "none.safetensors", {}, {"a": 1})
    assert load_tensors(tmp_path / "none.safetensors") == ({}, {"a": 1})
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
    tensors, metadata = load_tensors(tmp_path / "other.safetensors")
    assert torch.equal(tensors["w"], torch.ones(2))
    assert metadata == {}


def adam_state():
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "rng": torch.get_rng_state(),
        "pair": (1, None),
        "name": "ä",
    }


def test_training_state_round_trips_and_resumes_an_optimizer(tmp_path):
    state = adam_state()
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt")
    assert loaded["step"] == 7
    assert loaded["pair"] == (1, None)
    assert torch.equal(loaded["rng"], state["rng"])
    optimizer = torch.optim.Adam(nn.Linear(3, 2).parameters(), lr=1.0)
    optimizer.load_state_dict(loaded["optimizer"])
    for old, new in zip(state["optimizer"]["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("value", [np.float64(1.0), np.zeros(2), object(), {1, 2}, nn.Linear(1, 1)])
def test_state_that_could_not_be_loaded_again_is_refused_when_saved(tmp_path, value):
    with pytest.raises(StoreError, match=type(value).__name__):
        save_state(tmp_path / "state.pt", {"deep": [value]})
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Opening a pickle of this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_opening_a_state_runs_no_code(tmp_path):
    torch.save({"a": Trap(tmp_path / "sprung")}, tmp_path / "state.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for name in ("state.pt", "plain.pt"):
        with pytest.raises(StoreError, match=name):
            load_state(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 1, 8, 100, 0.5, -1])
@pytest.mark.parametrize("kind", ["weights", "state"])
def test_truncated_files_are_named_in_one_sentence(tmp_path, kind, kept):
    path = tmp_path / f"{kind}.bin"
    if kind == "weights":
        save_tensors(path, {"w": torch.rand(50, 50)}, {})
    else:
        save_state(path, adam_state())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(StoreError) as caught:
        load_tensors(path) if kind == "weights" else load_state(path)
    assert f"{path} is truncated" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_tensors, load_state])
def test_a_missing_file_is_named(tmp_path, load):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(StoreError, match=f"no file {path}"):
            load(path)


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for save in (lambda path: save_tensors(path, {}, {}), lambda path: save_state(path, {})):
        with pytest.raises(StoreError, match="cannot write"):
            save(tmp_path / "file" / "w.bin")


def test_weights_are_loaded_all_or_none():
    module, source = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(module, source.state_dict())
    assert torch.equal(module.weight, source.weight)
    assert torch.equal(module.bias, source.bias)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Linear(4, 2), r"'weight' is \(2, 4\) there and \(2, 3\) in this network"),
        (nn.Linear(3, 2, bias=False), "it lacks 'bias'"),
        (nn.Bilinear(3, 3, 2), "'weight' is"),
        (nn.BatchNorm1d(2), "'weight' is"),
        (
            nn.ParameterDict({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}),
            "it holds 'more'",
        ),
    ],
)
def test_weights_of_another_architecture_name_the_first_misfit(other, named):
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(StoreError, match=named) as caught:
        load_weights(module, other.state_dict(), what="runs/a/weights.safetensors")
    assert str(caught.value).startswith("runs/a/weights.safetensors is of another architecture")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_safetensors_file_that_says_something_else_than_an_object_is_named(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", {"consistency_lab": "[1]"})
    with pytest.raises(DamagedError, match=r"a\.safetensors is truncated or is not a safetensors file"):
        load_tensors(tmp_path / "a.safetensors")
