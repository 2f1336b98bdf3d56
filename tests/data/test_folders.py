"""Folders and zips of images."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from consistency_lab.data.folders import classes_of, read_folder
from consistency_lab.data.views import View
from consistency_lab.errors import UserError

Write = Callable[..., Path]


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_a_folder_and_its_zip_hold_the_same_images(write_pictures: Write, real: SimpleNamespace) -> None:
    folder = write_pictures("b/2.png", "a/1.png", "b/1.png", ".hidden/3.png", "__MACOSX/b/1.png")
    (folder / "notes.txt").write_text("no image")
    pixels, names = read_folder(folder, View())
    assert names == ["a/1.png", "b/1.png", "b/2.png"]
    for image, seed in zip(pixels, (1, 2, 0), strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(real.picture(seed)))
    from_zip, names_in_zip = read_folder(zipped(folder), View())
    assert torch.equal(from_zip, pixels)
    assert names_in_zip == [f"pictures/{name}" for name in names]
    for each in (names, names_in_zip):
        labels, class_names = classes_of(each, "x")
        assert labels is not None
        assert labels.tolist() == [0, 1, 1]
        assert class_names == ("a", "b")


def test_only_differing_folders_are_classes() -> None:
    assert classes_of(["1.png", "2.png"], "x") == (None, ())
    assert classes_of(["all/in/one/1.png", "all/in/one/2.png"], "x") == (None, ())
    labels, class_names = classes_of(["top/dog/x/1.png", "top/cat/1.png", "top/dog/y/1.png"], "x")
    assert labels is not None
    assert (labels.tolist(), class_names) == ([1, 0, 1], ("cat", "dog"))
    with pytest.raises(UserError, match=r"x mixes sub-folders.*\(2\.png\)"):
        classes_of(["a/1.png", "2.png"], "x")


def test_grey_images_have_one_channel_unless_colour_is_among_them(write_pictures: Write, real: SimpleNamespace) -> None:
    folder = write_pictures("1.png", "2.png", mode="L")
    pixels, _ = read_folder(folder, View())
    assert pixels.shape == (2, 1, 6, 6)
    real.picture(5).save(folder / "3.png")
    mixed, _ = read_folder(folder, View())
    assert mixed.shape == (3, 3, 6, 6)
    assert torch.equal(mixed[:2], pixels.expand(-1, 3, -1, -1))
    grey, _ = read_folder(folder, View(grey=True))
    assert torch.equal(grey[:2], pixels)


def test_sizes_must_agree_unless_they_are_made_to(write_pictures: Write) -> None:
    folder = write_pictures("1.png", height=6, width=6)
    write_pictures("2.png", height=8, width=10)
    with pytest.raises(UserError, match=r"several sizes \(1\.png is 6x6, 2\.png is 8x10\); give size"):
        read_folder(folder, View())
    assert read_folder(folder, View(size=4))[0].shape == (2, 3, 4, 4)
    assert read_folder(folder, View(crop=5))[0].shape == (2, 3, 5, 5)
    with pytest.raises(UserError, match=r"cannot crop 7 pixels from .*1\.png, 6x6"):
        read_folder(folder, View(crop=7))


def test_only_some_files(write_pictures: Write) -> None:
    folder = write_pictures("x/1.png", "x/2.png", "x/3.png")
    assert read_folder(folder, View(), {"1.png", "3.png"})[1] == ["x/1.png", "x/3.png"]
    with pytest.raises(UserError, match="no images of that split"):
        read_folder(folder, View(), {"4.png"})


def test_photographs_are_turned_upright(tmp_path: Path, real: SimpleNamespace) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    real.picture(0, height=4, width=6).save(tmp_path / "1.png", exif=exif)
    pixels, _ = read_folder(tmp_path, View())
    assert pixels.shape == (1, 3, 6, 4)
    upright = np.rot90(np.array(real.picture(0, height=4, width=6)), k=-1)
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), upright)


def test_opaque_alpha_and_palettes_are_understood(tmp_path: Path, real: SimpleNamespace) -> None:
    opaque = real.picture(0).convert("RGBA")
    opaque.save(tmp_path / "1.png")
    pixels, _ = read_folder(tmp_path, View())
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), np.array(real.picture(0)))
    palette = real.picture(0).quantize(16)
    palette.save(tmp_path / "1.png")
    pixels, _ = read_folder(tmp_path, View())
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), np.array(palette.convert("RGB")))


def test_images_that_would_be_misread_are_named(tmp_path: Path, real: SimpleNamespace) -> None:
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    whole = tmp_path / "whole.png"
    real.picture(0, 32, 32).save(whole)
    cases = {
        "deep.png": (lambda path: deep.save(path), "not an 8-bit image"),
        "glass.png": (lambda path: real.picture(0, mode="RGBA").save(path), "partly transparent"),
        "text.png": (lambda path: path.write_text("hello"), "not an image"),
        "empty.jpg": (lambda path: path.write_bytes(b""), "not an image"),
        "short.png": (lambda path: path.write_bytes(whole.read_bytes()[:-600]), "truncated, damaged"),
    }
    for name, (make, message) in cases.items():
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        make(folder / name)
        with pytest.raises(UserError, match=message) as caught:
            read_folder(folder, View())
        assert name in str(caught.value)


def test_folders_and_zips_that_hold_nothing_to_read(tmp_path: Path, write_pictures: Write) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no images"):
        read_folder(tmp_path / "empty", View())
    path = zipped(write_pictures("1.png", "2.png", height=20, width=20))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"pictures\.zip is neither a folder nor a readable zip"):
        read_folder(path, View())
    path.write_bytes(content[:300] + bytes(50) + content[350:])
    with pytest.raises(UserError, match=r"\.png is damaged or locked"):
        read_folder(path, View())


def test_links_to_folders_and_files_are_followed(tmp_path: Path, write_pictures: Write) -> None:
    store = write_pictures("1.png", "2.png", folder="elsewhere/dog")
    folder = write_pictures("cat/1.png")
    (folder / "dog").symlink_to(store, target_is_directory=True)
    (folder / "cat" / "3.png").symlink_to(store / "2.png")
    (folder / "cat" / "round").symlink_to(folder, target_is_directory=True)
    pixels, names = read_folder(folder, View())
    assert names == ["cat/1.png", "cat/3.png", "dog/1.png", "dog/2.png"]
    assert torch.equal(pixels[1], pixels[3])
    labels, class_names = classes_of(names, "x")
    assert labels is not None
    assert (labels.tolist(), class_names) == ([0, 0, 1, 1], ("cat", "dog"))
    (folder / "gone").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    with pytest.raises(UserError, match=r"gone is a link to .*nowhere, which is not there"):
        read_folder(folder, View())


def test_every_ending_of_a_picture_is_read(tmp_path: Path, real: SimpleNamespace) -> None:
    kinds = {"gif": "gif", "jfif": "jpeg", "JPE": "jpeg", "PNG": "png", "BMP": "bmp", "pbm": "ppm", "TIF": "tiff"}
    for seed, (suffix, kind) in enumerate(kinds.items()):
        picture = real.picture(seed)
        (picture.convert("1") if suffix == "pbm" else picture).save(tmp_path / f"{seed}.{suffix}", kind)
    pixels, names = read_folder(tmp_path, View())
    assert [name.split(".")[1] for name in names] == list(kinds)
    for seed in (3, 6):
        assert np.array_equal(pixels[seed].permute(1, 2, 0).numpy(), np.array(real.picture(seed)))


def test_what_is_left_out_is_counted_in_one_line(
    tmp_path: Path, write_pictures: Write, real: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_pictures("1.png", "2.png", ".3.png", "a/.git/4.png")
    assert read_folder(folder, View())[1] == ["1.png", "2.png"]
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    read_folder(folder, View())
    assert caplog.messages == []
    for name in ("b.HEIC", "a.heic", "labels.csv", "README"):
        (folder / name).write_bytes(b"x")
    real.picture(0).save(folder / "5.gif", save_all=True, append_images=[real.picture(1)])
    assert len(read_folder(folder, View())[0]) == 3
    (said,) = caplog.messages
    assert said.startswith(f"{folder}: left out 4 files (first README) of other kinds: 2 .heic, ")
    assert "1 .csv" in said
    assert "1 without ending" in said
    assert said.endswith("only the first frame or page of 1 file (first 5.gif with 2).")
    (folder / "only").mkdir()
    (folder / "only" / "a.npy").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"holds no images \(.*\.webp\); left out 1 file \(first a\.npy\) of other kinds: 1 \.npy"
    ):
        read_folder(folder / "only", View())


def test_a_zip_from_windows_and_one_with_a_name_twice(
    tmp_path: Path, write_pictures: Write, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_pictures("cat/1.png", "dog/1.png", "dog/2.png")
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pictures\\", b"")
        for name in ("dog/2.png", "dog/1.png", "cat/1.png"):
            archive.writestr(f"pictures\\{name}".replace("/", "\\"), (folder / name).read_bytes())
    pixels, names = read_folder(path, View())
    assert names == ["pictures/cat/1.png", "pictures/dog/1.png", "pictures/dog/2.png"]
    assert torch.equal(pixels, read_folder(folder, View())[0])
    assert classes_of(names, "x")[1] == ("cat", "dog")
    assert caplog.messages == []
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("pictures\\cat\\1.png", (folder / "dog/2.png").read_bytes())
    again, names_again = read_folder(path, View())
    assert names_again == names
    assert torch.equal(again, pixels[[2, 1, 2]])
    assert caplog.messages == [
        f"{path}: only the last of each of 1 name (first pictures/cat/1.png) that it holds twice."
    ]


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("Training", "TEST"), ("cat/train", "cat/valid")])
def test_splits_are_no_classes(one: str, other: str) -> None:
    with pytest.raises(
        UserError, match=r"x holds the folders .*, which are the splits of a set and no classes; give the path of one"
    ):
        classes_of([f"{one}/cat/1.png", f"{other}/cat/1.png", f"{one}/dog/1.png"], "x")
    labels, class_names = classes_of(["train/cat/1.png", "train/dog/1.png"], "x")
    assert labels is not None
    assert class_names == ("cat", "dog")
    assert classes_of(["bus/1.png", "train/1.png"], "x")[1] == ("bus", "train")


def test_chosen_files_must_all_be_there_once(write_pictures: Write) -> None:
    folder = write_pictures("x/1.png", "x/2.png", "y/2.png", "y/3.png")
    with pytest.raises(UserError, match=r"pictures lacks 2 of the 3 images asked for \(first 4\.png\); fetch it again"):
        read_folder(folder, View(), {"1.png", "4.png", "5.png"})
    with pytest.raises(UserError, match=r"holds 1 image \(first 2\.png\) in several folders"):
        read_folder(folder, View(), {"1.png", "2.png"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_cannot_be_read_are_named(write_pictures: Write) -> None:
    folder = write_pictures("a/1.png", "b/1.png")
    (folder / "b").chmod(0)
    try:
        with pytest.raises(UserError, match=r"cannot read .*b: Permission denied"):
            read_folder(folder, View())
    finally:
        (folder / "b").chmod(0o700)


def test_a_zip_of_a_version_to_come_and_a_member_without_a_name(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
    content = path.read_bytes()
    at = content.index(b"PK\1\2")
    path.write_bytes(content[: at + 6] + b"\xff" + content[at + 7 :])
    with pytest.raises(UserError, match=r"some\.zip is neither a folder nor a readable zip"):
        read_folder(path, View())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(".", b"x")
    with pytest.raises(UserError, match=r"some\.zip holds no images"):
        read_folder(path, View())
