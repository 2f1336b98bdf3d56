"""Images by name or path: ``load_images("digits")``, ``load_images("cifar10(size=16)")``, ``load_images("my.npz")``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consistency_lab.choices import Choice, Registry
from consistency_lab.data import published, synthetic
from consistency_lab.data.arrays import as_labels, as_pixels
from consistency_lab.data.folders import classes_of, read_folder
from consistency_lab.data.formats import read_npy, read_npz
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.data.published import Place
from consistency_lab.data.views import View
from consistency_lab.devices import plain_defaults
from consistency_lab.errors import UserError, nearest_path, unknown_name

_ARCHIVES = (".npz", ".npy", ".zip")
DATA_DIR = Path("data")  # relative to the working directory: where published sets are looked for and downloaded to


@plain_defaults()
def load_images(
    source: str | Path | Choice | ImageSet,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    **options: Any,
) -> ImageSet:
    """Images by name, with options, or by path.

    >>> load_images("digits")
    ImageSet('digits', 1797 images, shape=(1, 8, 8), float32, classes=10)

    Args:
        source: a name of `DATASETS`, perhaps with options ("cifar10(split='test', size=16)"); or the path of a folder
            or zip of images or of an .npz or .npy file, with options too ("photos(size=32)"); or an image set, which is handed back.
        data_dir: where the files of published sets lie; "data" in the working directory when left out.
        download: whether files of published sets that are missing there may be downloaded to there.
        options: further options of the set, for example ``size=16``.

    Raises `UserError` for an unknown name or option and for files that are missing, damaged or not what they should be.
    """
    if isinstance(source, ImageSet):
        if options:
            raise UserError(f"options ({', '.join(options)}) apply where images are read; {source!r} is read already.")
        return source
    choice = _choice(source)
    if choice.name not in DATASETS.names():
        unknown = unknown_name("dataset", choice.name, DATASETS.names())
        raise UserError(f"{unknown} There is no file or folder of that name here either.")
    place = Place(Path(data_dir or DATA_DIR).expanduser(), download)
    return DATASETS.build(Choice(choice.name, {**choice.options, **options}), place)


def _choice(source: str | Path | Choice) -> Choice:
    """Names win over paths of the same name; "./digits" is a path for sure."""
    if isinstance(source, Choice):
        return source
    if not isinstance(source, str | Path):
        check_set(source)
    text, options = str(source), {}
    if isinstance(source, str):
        name, there = source.partition("(")[0].strip(), Path(source).expanduser().exists()
        named = name in DATASETS.names() and (name == source.strip() or not there)
        if named or not (there or _looks_like_path(name)):
            return Choice.parse(source)
        if not there and source.rstrip().endswith(")"):
            choice = Choice.parse(source)
            text, options = choice.name, dict(choice.options)
    path = Path(text).expanduser()
    return Choice("npz" if path.suffix.lower() in (".npz", ".npy") else "folder", {**options, "path": str(path)})


def source_of(name: str) -> Choice | None:
    """What `load_images` is to be given for a set of that name (``"cifar10/train/16px"``); None where the name does not tell.

    A name says which view was taken of which split, and not with which options a synthetic set was made: compare fingerprints.
    """
    first, *parts = name.split("/")
    if first not in DATASETS.names() or first in ("folder", "npz"):
        return None
    known = DATASETS.options(first)
    # A view that is taken by default (CelebA's) is in the name, so one that is not named was not taken.
    options: dict[str, Any] = {key: None for key in ("crop", "size") if "split" in known and known.get(key) is not None}
    for part in parts:
        found = re.fullmatch(r"crop(?P<crop>\d+)|(?P<size>\d+)px|(?P<grey>grey)|(?P<split>[a-z]+)", part)
        if found is None:
            return None
        key, text = next((key, text) for key, text in found.groupdict().items() if text)
        if key not in known:
            return None
        options[key] = {"grey": True, "split": text}.get(key) or int(text)
    return Choice(first, options)


def _looks_like_path(name: str) -> bool:
    marked = any(mark in name for mark in "/\\") or Path(name).suffix.lower() in _ARCHIVES
    return marked or Path(name).expanduser().exists()


def _digits(_place: Place, *, size: int | None = None) -> ImageSet:
    """The 1,797 grey 8x8 digits that come with scikit-learn (UCI optdigits, test part), 10 classes."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    view = View(size=size)
    pixels = as_pixels(values.reshape(-1, 8, 8), "digits", value_range=(0, 16))
    return ImageSet(f"digits{view}", view.apply(pixels, "digits"), as_labels(labels, "digits"))


def _folder(
    _place: Place, *, path: str, crop: int | None = None, size: int | None = None, grey: bool = False
) -> ImageSet:
    """Every image below a folder or in a zip; the sub-folders, if there are several, are the classes."""
    where, view = _existing(path), View(crop, size, grey)
    pixels, names = read_folder(where, view)
    labels, class_names = classes_of(names, str(where))
    return ImageSet(f"{where.stem}{view}", pixels, labels, class_names)


def _npz(
    _place: Place,
    *,
    path: str,
    key: str = "images",
    label_key: str = "labels",
    value_range: tuple[float, float] | None = None,
    channels: str | None = None,
    crop: int | None = None,
    size: int | None = None,
    grey: bool = False,
) -> ImageSet:
    """Arrays saved by numpy: images as `ImageSet.from_array` takes them, labels if ``label_key`` is there; an .npy file has no labels."""
    where, view = _existing(path), View(crop, size, grey)
    if where.suffix.lower() == ".npy":
        if (key, label_key) != ("images", "labels"):
            raise UserError(f"{where} holds one array without a name; leave key and label_key out.")
        array, labels = read_npy(where), None
    else:
        array, labels = read_npz(where, key, label_key)
    name = where.stem
    pixels = view.apply(as_pixels(array, name, value_range, channels), name)
    return ImageSet(f"{name}{view}", pixels, None if labels is None else as_labels(labels, name))


def _existing(path: str) -> Path:
    where = Path(path).expanduser()
    if not where.exists():
        raise UserError(
            f"there is no file or folder {path}; images are loaded from a path or by one of the names "
            f"{', '.join(DATASETS.names())}.{nearest_path(path)}"
        )
    return where


def _anywhere(builder: Callable[..., ImageSet]) -> Callable[..., ImageSet]:
    """A builder that needs no place, with its own options."""

    @functools.wraps(builder)
    def build(_place: Place, **options: Any) -> ImageSet:
        return builder(**options)

    return build


DATASETS: Registry[ImageSet] = Registry(
    "dataset",
    {
        "digits": _digits,
        "mnist": published.mnist,
        "fashion-mnist": published.fashion_mnist,
        "cifar10": published.cifar10,
        "cifar100": published.cifar100,
        "celeba": published.celeba,
        "folder": _folder,
        "npz": _npz,
        "gaussian": _anywhere(synthetic.gaussian),
        "low-rank": _anywhere(synthetic.low_rank),
        "mixture": _anywhere(synthetic.mixture),
    },
)
