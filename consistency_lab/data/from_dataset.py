"""From whatever yields images one after the other to one array: a DataLoader, a data set, a list of PIL images or arrays."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from consistency_lab.errors import UserError

_logger = logging.getLogger(__name__)
# What data sets of Hugging Face call them.
_IMAGE, _LABEL = ("image", "img", "pixel_values"), ("label", "labels", "fine_label")


def from_dataset(source: Any, name: str) -> tuple[Any, torch.Tensor | None]:
    """All images of a source as one tensor (N, ...), and their labels where it yields (image, whole number); arrays as they are.

    Raises `UserError` for items that are no images, for images of several sizes or types, and for a source without items.
    """
    if isinstance(source, DataLoader):
        batches = [_parted(batch, name) for batch in source]
        if not batches:
            raise UserError(f"the DataLoader of {name!r} has no batches; give at least one image.")
        images = _joined(torch.cat, [_tensor(images, name) for images, _ in batches], name)
        _say_what_it_does(source, len(images), name)
        return images, _labels([label for images, labels in batches for label in _each(labels, len(images))])
    if _is_dataset(source) or (isinstance(source, list | tuple) and source and _is_item(source[0])):
        items = [_parted(item, name) for item in _items(source)]
        if not items:
            raise UserError(f"the data set of {name!r} has no items; give at least one image.")
        images = _joined(torch.stack, [_tensor(image, name) for image, _ in items], name)
        return images, _labels([label for _, label in items])
    if isinstance(source, Iterator):
        return from_dataset(list(source), name)
    if isinstance(source, dict):
        keys = list(map(str, source))
        raise UserError(f"{name!r} was given a dict of {', '.join(keys) or 'nothing'}; give one of its parts.")
    if _is_picture(source):
        raise UserError(f"{name!r} was given one picture; give a list of pictures, or load_images(FOLDER).")
    return source, None


def _say_what_it_does(loader: DataLoader, count: int, name: str) -> None:
    said = []
    if isinstance(loader.sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler):
        said.append("draws new images each time, so that every call makes another set")
    if isinstance(loader.sampler, Sized) and loader.drop_last and count < len(loader.sampler):
        said.append(f"leaves out {len(loader.sampler) - count} of {len(loader.sampler)} images (drop_last)")
    if said:
        _logger.warning(
            "the DataLoader of %r %s; give its data set (loader.dataset) instead.", name, " and ".join(said)
        )


def _is_dataset(source: Any) -> bool:
    """A torch data set, or one of its shape, such as Hugging Face's: a length, and an item at each position."""
    if isinstance(source, Dataset):
        return True
    shaped = all(hasattr(type(source), name) for name in ("__len__", "__getitem__"))
    known = list | tuple | dict | str | bytes | range | torch.Tensor | np.ndarray
    return shaped and not isinstance(source, known) and not hasattr(source, "__array__")


def _items(source: Any) -> Iterable[Any]:
    # By position where there is a length: iterating over __getitem__ ends only where that raises IndexError.
    indexed = _is_dataset(source) and not isinstance(source, IterableDataset)
    return (source[i] for i in range(len(source))) if indexed else source


def _is_item(item: Any) -> bool:
    """Whether a list begins with images, or images and labels, and not with the numbers of a nested list."""
    first = item[0] if isinstance(item, tuple) and len(item) == 2 else item
    return isinstance(first, torch.Tensor | np.ndarray) or _is_picture(first) or isinstance(item, dict)


def _is_picture(value: Any) -> bool:
    """Whether it is a PIL image, told without importing PIL."""
    return any(kind.__module__ == "PIL.Image" for kind in type(value).__mro__)


def _parted(item: Any, name: str) -> tuple[Any, Any]:
    """The image and the label of an item or batch; None if there is no label."""
    if isinstance(item, dict):
        found = [next((item[key] for key in keys if key in item), None) for keys in (_IMAGE, _LABEL)]
        if found[0] is None:
            raise UserError(
                f"the items of {name!r} are dicts of {', '.join(map(str, item))}, none of them {' or '.join(_IMAGE)}; give a list of their "
                "images, and labels=[...] of their labels."
            )
        return found[0], found[1]
    if not isinstance(item, list | tuple):
        return item, None
    if not item:
        raise UserError(f"an item of {name!r} is empty; give images, or (image, label).")
    return item[0], item[1] if len(item) > 1 else None


def _tensor(image: Any, name: str) -> torch.Tensor:
    from consistency_lab.data.pictures import from_pil

    if isinstance(image, torch.Tensor):
        return image.detach().cpu()
    if _is_picture(image):
        return from_pil(image, f"a picture of {name!r}")
    if isinstance(image, np.ndarray) and image.dtype.kind in "buif" and image.dtype.itemsize <= 8:
        return torch.from_numpy(image.astype(image.dtype.newbyteorder("="), order="C", copy=True))
    raise UserError(f"an item of {name!r} is no image but {type(image).__name__}; give tensors, arrays or PIL images.")


def _joined(join: Any, parts: list[torch.Tensor], name: str) -> torch.Tensor:
    if len({part.dtype for part in parts}) > 1:
        raise UserError(
            f"the images {name!r} are of several types ({_kinds(str(part.dtype) for part in parts)}); make them one."
        )
    try:
        return join(parts)
    except RuntimeError:
        shapes = _kinds(str(tuple(part.shape)) for part in parts)
        raise UserError(
            f"the images {name!r} are of several sizes ({shapes}); make them one, or load a folder with size=..."
        ) from None


def _kinds(words: Iterable[str]) -> str:
    kinds = list(dict.fromkeys(words))
    return ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")


def _each(labels: Any, count: int) -> list[Any]:
    """The labels of a batch, one by one."""
    fits = isinstance(labels, torch.Tensor | np.ndarray | list | tuple) and len(labels) == count
    return list(labels) if fits else [None] * count


def _labels(labels: list[Any]) -> torch.Tensor | None:
    """As int64 if each is a whole number; anything else (another image, a target of several numbers) is no label."""
    plain = [x.item() if isinstance(x, torch.Tensor | np.ndarray) and x.ndim == 0 else x for x in labels]
    if not all(isinstance(x, numbers.Integral) and not isinstance(x, bool) for x in plain):
        return None
    return torch.tensor([int(x) for x in plain], dtype=torch.int64)
