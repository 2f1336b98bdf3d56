"""Images by name or by path."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from consistency_lab.choices import Choice
from consistency_lab.data.sources import DATASETS, load_images, source_of
from consistency_lab.errors import UserError

Write = Callable[..., Path]


def test_digits() -> None:
    digits = load_images("digits")
    assert (len(digits), digits.shape, digits.classes) == (1797, (1, 8, 8), 10)
    assert digits.pixels.dtype == torch.float32
    assert torch.equal(digits.all() * 8 + 8, (digits.all() * 8 + 8).round())
    assert (digits.all().min(), digits.all().max()) == (-1, 1)
    assert digits.labels is not None
    assert digits.labels[:10].tolist() == list(range(10))
    assert digits.fingerprint == "c08a45fc2639968b8430fd7f3ba0b10e76e331af046cca9c728368c7b2827bfd"
    assert load_images("digits", size=4).shape == load_images("digits(size=4)").shape == (1, 4, 4)


def test_every_dataset_is_listed_with_its_options() -> None:
    published = {"mnist", "fashion-mnist", "cifar10", "cifar100", "celeba"}
    assert published | {"digits", "folder", "npz", "gaussian", "low-rank", "mixture"} == set(DATASETS.names())
    for name in published:
        assert DATASETS.options(name)["split"] == "train"
    assert DATASETS.options("gaussian")["std"] == 0.15
    assert all("size" in DATASETS.options(name) for name in DATASETS.names())


def test_unknown_names_and_options_say_what_exists() -> None:
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        load_images("digit")
    with pytest.raises(UserError, match="unknown option of the dataset 'digits' 'siez'"):
        load_images("digits", siez=8)
    with pytest.raises(UserError, match="path=3 of the dataset 'folder' is not usable"):
        load_images("folder(path=3)")
    with pytest.raises(UserError, match="'folder' needs path"):
        load_images("folder")


def test_a_folder_by_path_and_by_choice(write_pictures: Write) -> None:
    folder = write_pictures("cat/1.png", "dog/1.png", "dog/2.png")
    images = load_images(folder)
    assert (len(images), images.shape, images.class_names) == (3, (3, 6, 6), ("cat", "dog"))
    assert images.name == "pictures"
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1]
    for source in (f"{folder}/", f"folder(path={str(folder)!r})", Choice("folder", {"path": str(folder)})):
        assert load_images(source).fingerprint == images.fingerprint
    assert load_images(folder, size=3, grey=True).shape == (1, 3, 3)


def test_names_win_over_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_pictures: Write) -> None:
    write_pictures("1.png", folder="digits")
    write_pictures("1.png", folder="photos")
    monkeypatch.chdir(tmp_path)
    assert len(load_images("digits")) == 1797
    assert len(load_images("./digits")) == 1
    assert len(load_images("photos")) == 1


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=array, labels=np.arange(5), floats=array[..., 0] / 255)
    images = load_images(path)
    assert (images.name, images.shape, images.classes) == ("set", (3, 8, 8), 5)
    assert images.pixels.dtype == torch.uint8
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), array)
    assert load_images(str(path)).fingerprint == images.fingerprint
    floats = load_images(f"npz(path={str(path)!r}, key='floats', value_range=(0, 1), label_key='none', size=4)")
    assert (floats.shape, floats.classes, floats.pixels.dtype) == ((1, 4, 4), 0, torch.float32)
    with pytest.raises(UserError, match=r"value_range=\(lo, hi\)"):
        load_images(path, key="floats")


def test_options_behind_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_pictures: Write) -> None:
    folder = write_pictures("cat/1.png", "dog/1.png", folder="photos")
    write_pictures("1.png", folder="digits (copy)")
    np.savez(tmp_path / "set.npz", floats=np.random.default_rng(0).random((5, 8, 8)))
    monkeypatch.chdir(tmp_path)
    expected = load_images(folder, size=3, grey=True)
    for source in (
        "photos(size=3, grey=True)",
        "./photos(size=3, grey=True)",
        "photos/(grey=True, size=3)",
        f"{folder}(size=3, grey=True)",
    ):
        images = load_images(source)
        assert (images.fingerprint, images.name) == (expected.fingerprint, "photos/3px/grey")
    assert load_images("set.npz(key='floats', value_range=(0, 1), size=4)").shape == (1, 4, 4)
    assert len(load_images("digits (copy)")) == 1
    with pytest.raises(UserError, match=r"unknown option of the dataset 'folder' 'siez'.*Did you mean 'size'"):
        load_images("photos(siez=3)")
    with pytest.raises(UserError, match=r"there is no file or folder absent"):
        load_images("./absent(size=3)")
    with pytest.raises(UserError, match="unknown dataset 'absent'"):
        load_images("absent(size=3)")


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "set.NPY"
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with path.open("wb") as file:
        np.save(file, array)
    images = load_images(path)
    assert (images.name, images.classes) == ("set", 0)
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), array)
    assert load_images(f"{path}(size=4)").shape == (3, 4, 4)
    with pytest.raises(UserError, match=r"set\.NPY holds one array without a name; leave key"):
        load_images(path, key="images2")
    with path.open("wb") as file:
        np.save(file, array[:, :2, :1, :1])
    assert load_images(path, channels="first").shape == (2, 1, 1)
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"set\.NPY holds Python objects"):
        load_images(path)
    for content in (b"", b"hello", array.tobytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"set\.NPY cannot be read as an npy file"):
            load_images(path)


def test_missing_paths_are_said_to_be_missing(tmp_path: Path) -> None:
    for source in (
        tmp_path / "absent",
        str(tmp_path / "absent.npz"),
        "absent.npy",
        "absent.zip",
        "folder(path='absent')",
    ):
        with pytest.raises(UserError, match=r"there is no file or folder .*absent"):
            load_images(source)


def test_a_set_is_handed_back() -> None:
    digits = load_images("digits")
    assert load_images(digits) is digits
    with pytest.raises(UserError, match="options"):
        load_images(digits, size=4)


def test_heavy_libraries_are_imported_only_when_needed() -> None:
    code = (
        "import sys; from consistency_lab.data.sources import load_images; load_images('gaussian(count=8)');"
        "print([name for name in ('sklearn', 'PIL', 'pooch', 'requests', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("digits", "digits"),
        ("digits/16px", "digits(size=16)"),
        ("cifar10/test/crop24/16px/grey", "cifar10(crop=24, grey=True, size=16, split='test')"),
        ("celeba/train/crop140/64px", "celeba(crop=140, size=64, split='train')"),
        ("celeba/valid", "celeba(crop=None, size=None, split='valid')"),
        ("gaussian", "gaussian"),
        ("mine", None),
        ("folder", None),
        ("digits/held out", None),
        ("digits/train", None),
    ],
)
def test_what_a_name_says_of_its_source(name, source):
    found = source_of(name)
    assert (found if found is None else str(found)) == source
    if name.startswith("digits") and found is not None:
        assert load_images(found).name == name
