import warnings

import pytest
import torch
from torch import nn

from consistency_lab.cli import main
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.torchscript import load_torchscript
from consistency_lab.loading import load, load_all

OPTIONS = {"schedule": "linear", "predicts": "eps", "shape": (1, 4, 4), "time": "index"}
TRUSTED = {**OPTIONS, "trust": True, "device": "cpu"}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * (1 + timestep / 1000)[:, None, None, None]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def images_of(model):
    return model.generate(SharedNoise(0), range(5), Sampler(steps=5))


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen"])
def test_the_file_makes_the_images_of_the_module(net, tmp_path, how):
    script = (
        torch.jit.trace(net, (torch.zeros(2, 1, 4, 4), torch.zeros(2))) if how == "traced" else torch.jit.script(net)
    )
    script = torch.jit.freeze(script.eval()) if how == "frozen" else script
    script.save(str(tmp_path / "net.pt"))
    model = load_torchscript(tmp_path / "net.pt", **TRUSTED)
    assert model.name == "net"
    assert (model.facts["source"], model.facts["network"]) == ("torchscript", "Net")
    # Values of some tens in float32; a frozen graph may add in another order.
    torch.testing.assert_close(
        images_of(model), images_of(wrap_module(net, name="net", **OPTIONS)), rtol=1e-5, atol=1e-5
    )


def test_a_program_runs_only_where_it_is_trusted(net, tmp_path, monkeypatch):
    file = tmp_path / "net.pt"
    torch.jit.script(net).save(str(file))
    address = f"torchscript:{file}?schedule=linear&predicts=eps&shape=1,4,4&time=index"
    with monkeypatch.context() as patched:
        patched.setattr("torch.jit.load", lambda *_, **__: pytest.fail("it was opened"))
        for text, trust in ((address, False), (f"{address}&trust=True", False), (f"{address}&trust=True", True)):
            with pytest.raises(
                UserError, match="unknown option" if "trust" in text else "a program that may read and write"
            ):
                load(text, trust=trust, device="cpu")
        with pytest.raises(
            UserError, match=r"--trust, in Python trust=True.*safetensors and give it to wrap_module"
        ) as said:
            load_torchscript(file, device="cpu", **OPTIONS)
        assert str(said.value).count("trust it") == 1
        with pytest.raises(UserError, match="trust is True or False, not 'yes'"):
            load_torchscript(file, **{**TRUSTED, "trust": "yes"})
    there = load(address, trust=True, device="cpu")
    torch.testing.assert_close(images_of(there), images_of(load_all([address], trust=True, device="cpu")[0]))
    with pytest.raises(UserError, match="a program that may"):  # the permission has ended with the call
        load(address, device="cpu")


def test_the_command_line_asks_for_trust(net, tmp_path, capsys):
    file = tmp_path / "net.pt"
    torch.jit.script(net).save(str(file))
    address = f"torchscript:{file}?schedule=linear&predicts=eps&shape=1,4,4&time=index"
    asked = ["sample", address, "--count", "2", "--sampler", "ddim(steps=2)", "--out", str(tmp_path / "a.npz")]
    assert main([*asked, "--device", "cpu"]) == 2
    assert "say that you trust it (--trust" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()
    assert main([*asked, "--device", "cpu", "--trust"]) == 0
    assert (tmp_path / "a.npz").exists()


def test_loading_does_not_warn(net, tmp_path):
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_torchscript(tmp_path / "net.pt", **TRUSTED)


def test_files_that_are_no_torchscript(net, tmp_path):
    (tmp_path / "text.pt").write_bytes(b"nothing of the kind \xff\x00")
    (tmp_path / "empty.pt").touch()
    torch.save(net.state_dict(), tmp_path / "state.pt")
    torch.jit.script(net).save(str(tmp_path / "whole.pt"))
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:600])
    for name, said in [
        ("text.pt", "truncated or is not TorchScript"),
        ("empty.pt", "truncated or is not TorchScript"),
        ("half.pt", "truncated or is not TorchScript"),
        ("state.pt", "holds no TorchScript"),
        ("absent.pt", "there is no file"),
        ("", "there is no file"),
    ]:
        with pytest.raises(UserError, match=said):
            load_torchscript(tmp_path / name, **TRUSTED)


def test_a_damaged_script_is_named(net, tmp_path):
    import zipfile

    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith("data.pkl"):
                new.writestr(name, old.read(name))
    with pytest.raises(UserError, match=r"bad\.pt cannot be loaded as TorchScript"):
        load_torchscript(tmp_path / "bad.pt", **TRUSTED)
