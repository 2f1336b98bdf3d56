"""Folders and zips of images."""

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
