"""`ImageSet`: images in [-1, 1] with a name, perhaps labels, and a fingerprint that says which images they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from consistency_lab.data.arrays import as_labels, as_pixels, finite_range
from consistency_lab.data.from_dataset import from_dataset
from consistency_lab.data.labels import check_labels, renumbered
from consistency_lab.devices import resolve_device, sent
from consistency_lab.errors import ShapeError, UserError
from consistency_lab.markup import image

_FINGERPRINT_CHUNK = 4096  # images hashed at a time, so that a set on a GPU is never copied back whole


def check_set(images: object) -> None:
    """Raise `UserError` for anything but an `ImageSet`, and say how to make one of it."""
    if hasattr(images, "generate"):
        raise UserError(
            f"images are given as an image set, and {getattr(images, 'name', 'what was given')!r} is a model; a second model has an "
            "argument of its own, as in probe_landscape(a, images, towards=b)."
        )
    if not isinstance(images, ImageSet):
        text = isinstance(images, str | Path)
        make = f"load_images({str(images)!r})" if text else "ImageSet.from_array(images, name='mine')"
        raise UserError(f"images are given as an image set, not as {type(images).__name__}; write {make}.")


def check_shape(name: str, shape: Sequence[int], images: ImageSet) -> None:
    """Raise `ShapeError` unless the images have the shape (C, H, W) of those that the model of that name makes."""
    if tuple(shape) != images.shape:
        raise ShapeError(f"{name!r} makes images of {tuple(shape)}, but {images.name!r} has images of {images.shape}.")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images, their labels where they exist, and a name.

    Large sets stay uint8 (one byte per value, also on a GPU); `batch` makes floats of the few images that are asked for.

    Args:
        name: what reports call the set.
        pixels: (N, C, H, W); uint8, where 0..255 stands for -1..1 (x / 127.5 - 1), or float32 in [-1, 1].
        labels: (N,) int64 class numbers from 0, or None. Without ``class_names``, labels that skip numbers (1 to 10, or 255 for
            "ignore") are renumbered 0, 1, ..., so that no class is without images, and the old numbers become the class names.
        class_names: the class of label i is ``class_names[i]``; the numbers when left out.

    Raises `UserError` for a wrong type or shape, NaN, values outside [-1, 1], an empty set, labels that do not fit.
    """

    name: str
    pixels: torch.Tensor
    labels: torch.Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_pixels(self.name, self.pixels)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.labels is None:
            if self.class_names:
                raise UserError(f"the images {self.name!r} have class names but no labels; give labels too.")
            return
        classes = check_labels(self.name, self.labels, len(self.pixels))
        if not self.class_names:
            # Filled in here, so that a part of the set that lacks the last class still has the same number of classes.
            labels, names = renumbered(self.name, self.labels)
            object.__setattr__(self, "labels", labels)
            object.__setattr__(self, "class_names", names)
            classes = len(names)
        if classes > len(self.class_names):
            raise UserError(
                f"the images {self.name!r} have {len(self.class_names)} class names but a label {classes - 1}; "
                "name every class from 0 on, or give labels that count from 0."
            )
        object.__setattr__(self, "labels", self.labels.to(self.pixels.device))

    @classmethod
    def from_array(
        cls,
        array: Any,
        name: str,
        labels: Any = None,
        value_range: tuple[float, float] | None = None,
        class_names: Sequence[str] = (),
        channels: str | None = None,
    ) -> ImageSet:
        """Images from a numpy array or torch tensor of shape (N, H, W), (N, H, W, C) or (N, C, H, W).

        Also from a ``DataLoader``, a data set of torch, torchvision or Hugging Face, or a list of tensors, arrays or PIL images, read
        through once. Their items are images, (image, label), or dicts with an ``"image"`` or ``"img"`` and perhaps a ``"label"``.

        uint8 is taken as 0..255 and stays uint8, everything else becomes float32. Floats in [0, 1], as torchvision's ``ToTensor`` makes
        them, are so often given without a word that they are refused rather than taken for the bright half of [-1, 1].

        Args:
            array: the images.
            name: what reports call the set.
            labels: one whole number per image; when left out, those of a source that yields (image, whole number).
            value_range: (lo, hi), the values that become -1 and 1; may be left out for bytes that are not all nearly black, and for floats
                in [-1, 1] of which some are negative.
            class_names: see `ImageSet`.
            channels: ``"first"`` or ``"last"``, the axis that holds them; may be left out for 1 or 3 where only one of the two can be.

        Raises `UserError` for a wrong type, shape or range, NaN, an empty set, labels that do not fit.
        """
        images, found = from_dataset(array, name)
        pixels = as_pixels(images, name, value_range, channels)
        given = found if labels is None else labels
        return cls(name, pixels, None if given is None else as_labels(given, name), tuple(class_names))

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        kind = str(self.pixels.dtype).removeprefix("torch.")
        return f"ImageSet({self.name!r}, {len(self)} images, shape={self.shape}, {kind}, classes={self.classes})"

    def _repr_html_(self) -> str:
        from consistency_lab.data.thumbnails import strip  # a notebook alone needs the reader of pictures

        said = f"<strong>{escape(repr(self))}</strong>"
        if self.shape[0] not in (1, 3):
            return f"<div>{said}</div>"
        shown = min(len(self), 12)
        picture = image(strip(self.batch(range(shown))), f"the first {shown} images of {self.name}")
        return f"<div>{said}<br>{picture}</div>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    @property
    def device(self) -> torch.device:
        """Where the pixels live."""
        return self.pixels.device

    def batch(self, indices: Any, device: torch.device | str | None = None) -> torch.Tensor:
        """The images at ``indices`` as float32 (B, C, H, W) in [-1, 1].

        Args:
            indices: whole numbers in 0..N-1, as a sequence, array or tensor.
            device: where the batch goes; the set's own device when left out.
        """
        chosen = self.pixels[self._positions(indices)]
        return _to_float(chosen if device is None else chosen.to(device))

    def all(self) -> torch.Tensor:
        """Every image as float32 (N, C, H, W) in [-1, 1], a new tensor."""
        return _to_float(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of type, shape, pixels, labels and number of classes; the name and the device do not enter."""
        digest = hashlib.sha256(f"{self.pixels.dtype}{tuple(self.pixels.shape)}{self.classes}".encode())
        for part in self.pixels.split(_FINGERPRINT_CHUNK):
            digest.update(_little_endian(part))
        if self.labels is not None:
            digest.update(b"labels")
            digest.update(_little_endian(self.labels))
        return digest.hexdigest()

    def take(self, indices: Any, name: str) -> ImageSet:
        """The images at ``indices``, in that order, as a separate set; the classes stay."""
        chosen = self._positions(indices)
        labels = None if self.labels is None else self.labels[chosen]
        return ImageSet(name, self.pixels[chosen], labels, self.class_names)

    def mirrored(self) -> ImageSet:
        """These images and then their mirror images, left to right: the data of a run that was trained with ``flip=True``."""
        labels = None if self.labels is None else self.labels.repeat(2)
        return ImageSet(
            f"{self.name}, mirrored", torch.cat([self.pixels, self.pixels.flip(-1)]), labels, self.class_names
        )

    def split(self, *sizes: int, seed: int = 0) -> tuple[ImageSet, ...]:
        """Disjoint random parts of the given sizes; images left over belong to none.

        The order is a function of (number of images, seed) alone: the stable sort of raw PCG64 output, a stream that
        numpy keeps across versions as it does not keep ``permutation``. Raises `UserError` if the sizes do not fit.
        """
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise UserError(f"cannot split {self.name!r} into {sizes}: give one or more positive whole numbers.")
        if sum(sizes) > len(self):
            raise UserError(f"cannot split {self.name!r} into {sizes}: it has {len(self)} images, not {sum(sizes)}.")
        if seed < 0:
            raise UserError(f"the seed of a split must be 0 or more, not {seed}.")
        order = np.argsort(np.random.PCG64(seed).random_raw(len(self)), kind="stable")
        ends = np.cumsum(sizes)
        return tuple(
            self.take(order[end - size : end], f"{self.name}/split{i}-of-{len(sizes)}@seed{seed}")
            for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
        )

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        moved = replace(self, pixels=self.pixels.to(resolve_device(device)))  # the labels follow
        if "fingerprint" in self.__dict__:
            moved.__dict__["fingerprint"] = self.fingerprint
        return moved

    def _positions(self, indices: Any) -> torch.Tensor:
        """Checked here because an index out of range on a GPU kills the process instead of raising."""
        try:
            chosen = indices if isinstance(indices, torch.Tensor) else torch.as_tensor(indices, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            chosen = torch.empty(0, device="cpu")  # what is no list of numbers
        if chosen.ndim != 1 or len(chosen) == 0 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise UserError(f"indices into {self.name!r} must be a non-empty list of whole numbers.")
        if int(chosen.min()) < 0 or int(chosen.max()) >= len(self):
            raise UserError(f"indices into {self.name!r} must lie in 0..{len(self) - 1}.")
        return sent(chosen.to(torch.int64), self.device)


def _check_pixels(name: str, pixels: torch.Tensor) -> None:
    if not isinstance(pixels, torch.Tensor) or pixels.dtype not in (torch.uint8, torch.float32):
        kind = str(pixels.dtype) if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise UserError(f"the images {name!r} must be a uint8 or float32 tensor, not {kind}; use ImageSet.from_array.")
    if pixels.ndim != 4 or 0 in pixels.shape[1:]:
        raise UserError(f"the images {name!r} must have the shape (N, C, H, W), not {tuple(pixels.shape)}.")
    if len(pixels) == 0:
        raise UserError(f"the image set {name!r} is empty; give at least one image.")
    if pixels.dtype == torch.float32:
        low, high = finite_range(pixels, name)
        if low < -1 or high > 1:
            raise UserError(
                f"the images {name!r} have values in [{low:.4g}, {high:.4g}] outside [-1, 1]; "
                "use ImageSet.from_array with value_range=(lo, hi)."
            )


def _to_float(pixels: torch.Tensor) -> torch.Tensor:
    floats = pixels.to(torch.float32, copy=True)
    if pixels.dtype == torch.uint8:
        # By a tensor: CUDA turns division by a number into a product with 1 / 127.5, which differs in the last bit.
        floats.div_(torch.full((), 127.5, dtype=torch.float32, device=pixels.device)).sub_(1)
    return floats


def _little_endian(tensor: torch.Tensor) -> memoryview:
    array = tensor.cpu().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).data
