import warnings
import zipfile

import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.metrics.copy_detection import _open as open_embedding
from consistency_lab.packing import packing_holds
from consistency_lab.trust import trusting


@pytest.fixture(autouse=True)
def trusted():
    with trusting():
        yield


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export is to be used instead
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    return path


def flipped(path, target, suffix):
    """The file with one bit of that member flipped."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(suffix))
    name, more = (int.from_bytes(content[info.header_offset + at :][:2], "little") for at in (26, 28))
    content[info.header_offset + 30 + name + more + info.file_size // 2] ^= 4
    target.write_bytes(content)
    return target


def test_a_whole_archive_holds(script):
    assert packing_holds(script)
    assert open_embedding(script)(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("suffix", ["data.pkl", ".py", ".debug_pkl", "/0"])
def test_one_bit_in_any_member_is_seen_before_torch_reads_it(script, tmp_path, suffix):
    path = flipped(script, tmp_path / "net.pt", suffix)
    assert not packing_holds(path)
    with pytest.raises(UserError, match=r"net\.pt is truncated, damaged or"):
        open_embedding(path)


@pytest.mark.parametrize("content", [b"", b"PK\5\6", b"nothing of the kind", bytes(1000)])
def test_what_is_no_archive_does_not_hold(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not packing_holds(tmp_path / "file")
    assert not packing_holds(tmp_path / "absent")
