import os
import pickle

import pytest
import torch
from torch import nn

from consistency_lab.addresses import is_foreign, open_foreign
from consistency_lab.errors import UserError


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    file = tmp_path / "network-snapshot-000100.pkl"
    file.write_bytes(pickle.dumps({"ema": Bomb(str(tmp_path / "exploded"))}))
    return file


def test_the_bomb_works(bomb, tmp_path):
    pickle.loads(bomb.read_bytes())
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("prefix", ["", "edm:", "diffusers:", "torchscript:"])
def test_pickles_are_refused_unopened_with_a_way_out(bomb, tmp_path, prefix, monkeypatch):
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("it was opened"))
    bomb.chmod(0)  # and could not even be read
    options = "?schedule=edm&predicts=x0&shape=3,32,32&time=sigma" if prefix == "torchscript:" else ""
    with pytest.raises(UserError, match="opening one runs whatever code") as caught:
        open_foreign(f"{prefix}{bomb}{options}")
    assert not (tmp_path / "exploded").exists()
    assert 'open("network-snapshot-000100.pkl", "rb")' in str(caught.value)
    assert "network-snapshot-000100.safetensors" in str(caught.value)


def test_the_way_out_is_python(bomb):
    with pytest.raises(UserError) as caught:
        open_foreign(str(bomb))
    recipe = [line.strip() for line in str(caught.value).splitlines()[1:]]
    compile("\n".join(recipe), "recipe", "exec")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_in_one_line(tmp_path):
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return x / (1 + sigma[:, None, None, None] ** 2)

    torch.jit.script(Net()).save(str(tmp_path / "net.pt"))
    text = f"torchscript:{tmp_path}/net.pt?schedule=edm(sigma_max=40.0)&predicts=x0&time=sigma&shape=1,4,4"
    model = open_foreign(f"{text}&name=7", device="cpu", trust=True)
    assert (model.name, model.noise_shape, model.denoiser.schedule.sigma_max) == ("7", (1, 4, 4), 40.0)
    assert open_foreign(text, name="mine", device="cpu", trust=True).name == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("difusers:folder", "Did you mean 'diffusers'"),
        ("folder", "write diffusers:folder"),
        ("diffusers:", "names no file"),
        ("diffusers:nowhere", "there is no folder nowhere"),
        ("diffusers:nowhere?shedule=linear", "Did you mean 'schedule'"),
        ("diffusers:nowhere?schedule", "cannot read the option 'schedule'"),
        ("torchscript:net.pt?schedule=edm&shape=1,4,4", "does not give predicts, time"),
    ],
)
def test_texts_that_cannot_be_read(text, said):
    with pytest.raises(UserError, match=said):
        open_foreign(text, device="cpu")


def test_what_is_foreign():
    assert all(map(is_foreign, ["diffusers:a", "torchscript:a.pt", "edm:a", "a/b.pkl"]))
    assert not any(map(is_foreign, ["runs/model-unet-s0-0123456789ab", "unet-s0", "C:/runs/x"]))
