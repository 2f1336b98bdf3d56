"""Readers of single files, on files of the real formats, sound and spoilt."""

import gzip
import os
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consistency_lab.data.formats import read_cifar_batch, read_idx, read_npy, read_npz
from consistency_lab.errors import UserError
from consistency_lab.pipelines.folders import load_folder_model

DIGITS = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_plain_and_packed(tmp_path: Path, real: SimpleNamespace, pack: Any) -> None:
    content = real.idx(DIGITS)
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(pack(content))
    assert np.array_equal(read_idx(path, f"sha256:{real.sha256(content)}"), DIGITS)
    assert np.array_equal(read_idx(path), DIGITS)


def test_spoilt_idx_files_are_named(tmp_path: Path, real: SimpleNamespace) -> None:
    content = real.idx(DIGITS)
    packed = gzip.compress(content)
    cases = {
        "short": (content[:-1], "truncated or damaged: it holds 139 bytes where its header says 7 x 5 x 4"),
        "long": (content + b"x", "truncated or damaged: it holds 141"),
        "header": (content[:9], "not an IDX file"),
        "empty": (b"", "not an IDX file"),
        "floats": (content[:2] + b"\x0d" + content[3:], "not an IDX file of unsigned bytes"),
        "cut.gz": (packed[:-20], "cannot be unpacked"),
        "bits.gz": (packed[:30] + bytes(8) + packed[38:], "truncated or damaged"),
    }
    for name, (spoilt, message) in cases.items():
        (tmp_path / name).write_bytes(spoilt)
        with pytest.raises(UserError, match=message) as caught:
            read_idx(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(UserError, match=r"sha256 begins .* instead of 000000000000"):
        read_idx(tmp_path / "short", "sha256:" + "0" * 64)
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        read_idx(tmp_path / "absent")


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=DIGITS, labels=np.arange(7), other=np.zeros(2))
    images, labels = read_npz(path, "images", "labels")
    assert np.array_equal(images, DIGITS)
    assert labels is not None
    assert labels.tolist() == list(range(7))
    assert read_npz(path, "other", "none")[1] is None
    with pytest.raises(UserError, match="no array 'x' but images, labels, other; name the one"):
        read_npz(path, "x", "labels")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_npz_never_opens_pickles(tmp_path: Path) -> None:
    path, trace = tmp_path / "bomb.npz", tmp_path / "trace"
    np.savez(path, images=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(UserError, match=r"bomb\.npz holds Python objects"):
        read_npz(path, "images", "labels")
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(UserError, match=r"bomb\.npz cannot be read as an npz file"):
        read_npz(path, "images", "labels")
    assert not trace.exists()


def test_spoilt_npz_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, images=DIGITS)
    content = whole.read_bytes()
    array = tmp_path / "array.npy"
    np.save(array, DIGITS)
    middle = len(content) // 2
    cases = {
        "short": content[:-30],
        "bits": content[: middle - 30] + bytes(60) + content[middle + 30 :],
        "text": b"hello",
        "empty": b"",
        "array": array.read_bytes(),
    }
    for name, spoilt in cases.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(spoilt)
        with pytest.raises(UserError, match=rf"{name}\.npz cannot be read as an npz file"):
            read_npz(path, "images", "labels")


def test_a_batch_as_python_2_wrote_it(real: SimpleNamespace) -> None:
    data = np.arange(2 * 3072, dtype=np.uint16).astype(np.uint8).reshape(2, 3072)
    content = real.pickle({"data": data, "labels": [3, 1], "filenames": ["a.png", "b.png"], "batch_label": "one"})
    assert content[:2] == b"\x80\x02"
    assert b"numpy.core.multiarray" in content
    assert pickle.BINUNICODE not in content.replace(data.tobytes(), b"")
    batch = read_cifar_batch(content, f"md5:{real.md5(content)}", "data_batch_1")
    assert batch["data"].dtype == np.uint8
    assert np.array_equal(batch["data"], data)
    assert (batch["labels"], batch["batch_label"]) == ([3, 1], "one")


def test_a_batch_of_numpy_2_reads_as_well(real: SimpleNamespace) -> None:
    content = pickle.dumps({"data": DIGITS}, protocol=4)
    batch = read_cifar_batch(content, f"sha256:{real.sha256(content)}", "batch")
    assert np.array_equal(batch["data"], DIGITS)


def test_a_wrong_checksum_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the unpickler was started")

    monkeypatch.setattr("consistency_lab.data.formats._ArraysOnly", opened)
    with pytest.raises(UserError, match="data_batch_1 is damaged or is not the published file: its md5 begins"):
        read_cifar_batch(pickle.dumps({}), "md5:" + "0" * 32, "data_batch_1")


def test_code_in_a_batch_is_never_run(tmp_path: Path, real: SimpleNamespace) -> None:
    trace = tmp_path / "trace"
    for content in (pickle.dumps({"data": Bomb(trace)}), pickle.dumps(Bomb(trace), protocol=0)):
        with pytest.raises(UserError, match="batch asks for Python objects other than arrays"):
            read_cifar_batch(content, f"md5:{real.md5(content)}", "batch")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1]), pickle.dumps({"data": DIGITS})[:-40]])
def test_what_is_no_batch_is_named(real: SimpleNamespace, content: bytes) -> None:
    with pytest.raises(UserError, match="batch is not a batch of CIFAR"):
        read_cifar_batch(content, f"md5:{real.md5(content)}", "batch")


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape",
    "{'descr': [[, }",
    "{}",
    "(" * 90,
    "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_an_npy_file_with_a_damaged_header_is_named(tmp_path, header):
    text = header.ljust(117).encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    with pytest.raises(UserError, match=r"a\.npy cannot be read as an npy file"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"a\.npy"):
        load_folder_model(tmp_path)


def test_a_member_that_is_no_array_and_an_archive_of_another_name_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", b"no array")
    with pytest.raises(UserError, match=r"a\.npz cannot be read as an npz file"):
        read_npz(tmp_path / "a.npz", "images", "labels")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(UserError, match=r"b\.npy is no array of numpy but a zip file"):
        load_folder_model(tmp_path / "b.npy")
