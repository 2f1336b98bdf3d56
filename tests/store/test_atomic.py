import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consistency_lab.errors import StoreError
from consistency_lab.store.atomic import atomic_path, atomic_write, ensure_writable, file_name, sweep

KILLED_WHILE_WRITING = """
import os, signal, sys
from consistency_lab.store.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half of the new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_the_old_file_and_make_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    atomic_write(path, "old")
    atomic_write(path, "naïve")
    assert path.read_text("utf-8") == "naïve"
    atomic_write(path, memoryview(b"\x00\xff"))
    assert path.read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["file.txt"]


def test_the_temporary_name_keeps_the_suffix_and_the_folder(tmp_path):
    with atomic_path(tmp_path / "figure.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["figure.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("before", ["old", None])
def test_a_kill_in_the_middle_leaves_the_old_file_or_none(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        atomic_write(path, before)
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == before
    left = [name for name in names(tmp_path) if name != "file"]
    assert len(left) == 1
    sweep(tmp_path)
    assert names(tmp_path) == (["file"] if before else [])


def unwritable_places(tmp_path: Path) -> list[Path]:
    """Places that even the superuser cannot write to."""
    (tmp_path / "in_the_way").write_text("a file")
    places = [tmp_path / "in_the_way" / "below", tmp_path / "in_the_way", tmp_path / ("x" * 300)]
    return places + [Path("/proc/nothing")] * os.path.isdir("/proc/self")


@pytest.mark.parametrize("index", range(4))
def test_an_unwritable_place_is_one_sentence_that_names_it(tmp_path, index):
    place = (unwritable_places(tmp_path) * 2)[index]
    for attempt in (lambda: atomic_write(place / "file", "x"), lambda: ensure_writable(place)):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert place.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["in_the_way"]


def test_ensure_writable_leaves_nothing_behind(tmp_path, monkeypatch):
    ensure_writable(tmp_path / "new" / "deeper")
    ensure_writable(tmp_path)
    monkeypatch.chdir(tmp_path)
    ensure_writable("relative/place")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "../../escape",
        "/etc/x",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "C:x",
        "a\0b",
        "low\udcff",
        "two\nlines",
        "ä" * 200,
        "x" * 400,
        "<b>|?*",
    ],
)
def test_any_name_is_that_of_one_file_in_the_folder(tmp_path, name):
    path = tmp_path / f"{file_name(name)}.nc"
    atomic_write(path, "x")
    assert names(tmp_path) == [path.name]
    assert not path.name.startswith(".")
    assert not set(path.name) & set('/\\<>:"|?*')


def test_names_that_files_can_have_stay_and_long_ones_stay_apart():
    for name in ("unet-s0", "difficulty-unet-s0 (lr=0.001)", "loss at t=0.3", "näh"):
        assert file_name(name) == name
    assert file_name("x" * 400) != file_name("x" * 401)
