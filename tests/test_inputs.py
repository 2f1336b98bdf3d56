import gzip
import io
import os
import socket
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import consistency_lab as cl
from consistency_lab import inputs
from consistency_lab.data.formats import read_bytes, read_idx, read_npy, read_npz
from consistency_lab.data.pictures import decode
from consistency_lab.errors import StoreError, UserError
from consistency_lab.gates.baseline import Baseline
from consistency_lab.inputs import check_archive, check_file, check_fits, free_memory
from consistency_lab.interop.layout import read_json
from consistency_lab.interop.states import load_state
from consistency_lab.interop.torchscript import load_torchscript
from consistency_lab.metrics.copy_detection import sscd
from consistency_lab.paper.rows import Rows
from consistency_lab.pipelines.folders import load_folder_model
from consistency_lab.pipelines.recording_files import load_recording
from consistency_lab.recipe.recipe import Recipe
from consistency_lab.store import checkpoint
from consistency_lab.store.results import load_result
from consistency_lab.store.run import Run
from consistency_lab.training.settings import TrainingSettings

TORCHSCRIPT = {
    "schedule": "linear",
    "predicts": "eps",
    "shape": (1, 4, 4),
    "time": "unit",
    "device": "cpu",
    "trust": True,
}
READERS = {
    "bytes": read_bytes,
    "idx": read_idx,
    "npz": lambda path: read_npz(path, "images", "labels"),
    "npy": read_npy,
    "images": lambda path: cl.load_images(f"{path}.npz"),
    "zip": lambda path: cl.load_images(f"{path}.zip"),
    "folder model": lambda path: load_folder_model(f"{path}.npz"),
    "recording": lambda path: load_recording(f"{path}.npz"),
    "tensors": checkpoint.load_tensors,
    "header": checkpoint.check_tensors,
    "state": checkpoint.load_state,
    "weights": load_state,
    "any": lambda path: cl.load(f"{path}.pt"),
    "torchscript": lambda path: load_torchscript(path, **TORCHSCRIPT),
    "sscd": lambda path: sscd(path=path, trust=True),
    "result": load_result,
    "run": lambda path: Run.open(path.parent / "run"),
    "rows": Rows,
    "settings": TrainingSettings.read,
    "recipe": Recipe.load,
    "baseline": Baseline.read,
    "json": read_json,
}


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """A named pipe under every name that is read: opening one of them would wait for ever."""
    folder = tmp_path_factory.mktemp("pipes")
    (folder / "run").mkdir()
    for name in ("pipe", "pipe.npz", "pipe.zip", "pipe.pt", "run/spec.json"):
        os.mkfifo(folder / name)
    return folder / "pipe"


@pytest.mark.parametrize("reader", READERS)
def test_named_pipes_are_refused_by_every_reader(reader, pipes):
    with pytest.raises(UserError, match="is a named pipe, not a file"):
        READERS[reader](pipes)


def test_devices_and_sockets_are_refused_and_what_is_missing_is_left_to_its_reader(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="/dev/zero is a device, not a file"):
        check_file("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        bound.bind("s")
        with pytest.raises(StoreError, match="is a socket"):
            check_file(tmp_path / "s")
    check_file(tmp_path)
    check_file(tmp_path / "none")


def header(shape, dtype="<f4"):
    """Of an .npy file."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue()


def peak(function):
    """Bytes that Python and numpy take while the function runs, and what it raises."""
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, str(caught.value)


def test_an_array_that_its_file_cannot_hold_is_refused_before_it_is_made(tmp_path):
    huge, within = tmp_path / "huge.npy", tmp_path / "within.npy"
    huge.write_bytes(header((10**9, 3, 64, 64)) + bytes(100))
    within.write_bytes(header((100, 8, 8)) + bytes(100))
    for file, said in ((huge, "1000000000 x 3 x 64 x 64 of float32"), (within, "25,600 bytes, and 100 follow")):
        most, message = peak(lambda file=file: read_npy(file))
        assert said in message
        assert most < 2**20
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", huge.read_bytes())
    for reader in (
        lambda: read_npz(tmp_path / "a.npz", "images", "labels"),
        lambda: load_recording(tmp_path / "a.npz"),
    ):
        most, message = peak(reader)
        assert "images.npy in " in message
        assert most < 2**20


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "free_memory", lambda: 2**22)
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        member.write(header((2**23,), "|u1") + bytes(2**23))
    most, message = peak(lambda: cl.load_images(bomb))
    assert "GiB of memory are free; it is damaged, made to exhaust the memory, or too large" in message
    assert most < 2**20
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**23))
    most, message = peak(lambda: cl.load_images(tmp_path / "pictures.zip"))
    assert "a.png says that it holds" in message
    assert most < 2**20


def test_more_than_deflate_can_pack_is_a_lie(tmp_path):
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((4,)) + bytes(16))
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**30)
    file.write_bytes(content)
    with pytest.raises(StoreError, match="unpack to 1,073,741,824, which they cannot"):
        check_archive(file)


def test_what_is_packed_tightly_but_honestly_is_read(tmp_path):
    images = np.zeros((2000, 8, 8), dtype=np.uint8)
    images[0, 0, 0] = 255
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.zeros(2000, dtype=int))
    assert len(cl.load_images(tmp_path / "a.npz")) == 2000
    np.save(tmp_path / "a.npy", images)
    assert read_npy(tmp_path / "a.npy").shape == images.shape


def test_an_idx_file_unpacks_no_further_than_its_header_says(tmp_path):
    file, whole = tmp_path / "a.gz", struct.pack(">BBBBII", 0, 0, 8, 2, 3, 4) + bytes(range(12))
    file.write_bytes(gzip.compress(whole))
    assert read_idx(file).tolist() == np.arange(12).reshape(3, 4).tolist()
    file.write_bytes(gzip.compress(whole + bytes(2**24)))
    most, message = peak(lambda: read_idx(file))
    assert "holds 13 bytes where its header says 3 x 4" in message
    assert most < 2**20
    file.write_bytes(gzip.compress(struct.pack(">BBBBII", 0, 0, 8, 2, 2**31, 2**31)))
    most, message = peak(lambda: read_idx(file))
    assert "says that it holds 4,294,967,296.0 GiB" in message


def test_headers_of_safetensors_and_netcdf_declare_no_more_than_there_is(tmp_path):
    text = b'{"w":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    dims = struct.pack(">4sI", b"CDF\x01", 0) + struct.pack(">II", 10, 1) + struct.pack(">I4sI", 1, b"x\0\0\0", 2**30)
    variable = struct.pack(">II", 11, 1) + struct.pack(">I4s", 1, b"v\0\0\0") + struct.pack(">II", 1, 0)
    variable += struct.pack(">IIIII", 0, 0, 5, 2**32 - 4, 200)
    (tmp_path / "a.nc").write_bytes(dims + struct.pack(">II", 0, 0) + variable + bytes(300))
    (tmp_path / "b.nc").write_bytes(gzip.compress(bytes(2**20)))
    for read, name in ((checkpoint.load_tensors, "a.safetensors"), (load_result, "a.nc"), (load_result, "b.nc")):
        most, message = peak(lambda read=read, name=name: read(tmp_path / name))
        assert "is truncated or is not a" in message
        assert most < 2**22


def test_a_checkpoint_of_torch_that_is_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(2**21)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    monkeypatch.setattr(inputs, "free_memory", lambda: 2**22)
    for read in (load_state, checkpoint.load_state):
        most, message = peak(lambda read=read: read(tmp_path / "a.pt"))
        assert "says that it holds" in message
        assert most < 2**20


def test_a_picture_of_more_pixels_than_pil_opens_is_refused_undecoded():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    other = bytearray(jpeg.getvalue())
    at = other.index(b"\xff\xc0")
    other[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    for picture in (content, bytes(other)):
        most, message = peak(lambda picture=picture: decode(picture, "a picture"))
        assert "has 3600 megapixels, and PIL opens no more than" in message
        assert most < 2**22


def test_free_memory_is_that_of_the_machine_and_of_the_group(tmp_path, monkeypatch):
    free = free_memory()
    assert free is None or 2**20 < free < 2**50
    check_fits(0, "nothing")
    for name, text in (("max", f"{2**24}"), ("current", f"{2**23}"), ("stat", f"anon 5\ninactive_file {2**22}")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(inputs, "_CGROUP", tmp_path)
    assert free_memory() == 2**24 - 2**23 + 2**22
    (tmp_path / "memory.max").write_text("max")
    assert free_memory() != 2**24 - 2**23 + 2**22
