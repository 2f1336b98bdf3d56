"""Sets from what training loops hold: DataLoaders, torch data sets, lists. The advice of the errors is followed to the letter."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError

BYTES = torch.randint(0, 256, (7, 3, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
UNIT = BYTES.float() / 255
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


class Rows(Dataset):
    """Has a length, and goes on for ever when it is iterated over."""

    def __len__(self) -> int:
        return len(UNIT)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return UNIT[i % 7], int(LABELS[i % 7])


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(UNIT)


def followed(images: Any) -> ImageSet:
    """What the advice of `check_set` and then that of the range give."""
    with pytest.raises(UserError) as caught:
        check_set(images)
    (advice,) = re.findall(r"write (ImageSet\.from_array\(.*\))\.$", str(caught.value))
    with pytest.raises(UserError, match=r"value_range=\(lo, hi\), for example \(0, 1\)"):
        eval(advice, {"ImageSet": ImageSet, "images": images})
    return eval(advice.replace(")", ", value_range=(0, 1))"), {"ImageSet": ImageSet, "images": images})


@pytest.mark.parametrize(
    "images",
    [
        DataLoader(TensorDataset(UNIT, LABELS), batch_size=3),
        DataLoader(Rows(), batch_size=4),
        TensorDataset(UNIT, LABELS),
        Rows(),
        [(image, int(label)) for image, label in zip(UNIT, LABELS, strict=True)],
    ],
)
def test_loaders_and_data_sets_bring_images_and_labels(images: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = followed(images)
    assert torch.allclose(found.all(), UNIT * 2 - 1, atol=1e-6)
    assert found.labels is not None
    assert torch.equal(found.labels, LABELS)
    assert found.name == "mine"
    check_set(found)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "images",
    [
        DataLoader(TensorDataset(UNIT), batch_size=3),
        DataLoader(UNIT, batch_size=3),
        DataLoader(Stream(), batch_size=3, drop_last=False),
        DataLoader(TensorDataset(UNIT, UNIT), batch_size=3),
        TensorDataset(UNIT),
        Stream(),
        list(UNIT),
        (image.numpy() for image in UNIT),
        [image.permute(1, 2, 0).numpy() for image in UNIT],
        UNIT.numpy(),
    ],
)
def test_images_without_labels(images: Any) -> None:
    found = ImageSet.from_array(images, "x", value_range=(0, 1))
    assert torch.allclose(found.all(), UNIT * 2 - 1, atol=1e-6)
    assert found.labels is None


class Dicts:
    """As a data set of Hugging Face: no torch `Dataset`, items that are dicts, decoded pictures."""

    def __init__(self, key: str, label: str | None):
        self.key, self.label = key, label

    def __len__(self) -> int:
        return len(BYTES)

    def __getitem__(self, i: int) -> dict[str, Any]:
        item: dict[str, Any] = {"id": f"row {i}", self.key: Image.fromarray(BYTES[i].permute(1, 2, 0).numpy())}
        return item if self.label is None else {**item, self.label: int(LABELS[i])}


@pytest.mark.parametrize(("key", "label"), [("image", "label"), ("img", "fine_label"), ("image", None)])
def test_data_sets_of_hugging_face(key: str, label: str | None) -> None:
    source = Dicts(key, label)
    with pytest.raises(UserError) as caught:
        check_set(source)
    (advice,) = re.findall(r"write (ImageSet\.from_array\(.*\))\.$", str(caught.value))
    images = eval(advice, {"ImageSet": ImageSet, "images": source})
    assert torch.equal(images.pixels, BYTES)
    assert images.labels is None if label is None else torch.equal(images.labels, LABELS)
    loader = DataLoader([{key: image, "label": int(y)} for image, y in zip(BYTES, LABELS, strict=True)], batch_size=3)
    batched = ImageSet.from_array(loader, "batched")
    assert torch.equal(batched.pixels, BYTES)
    assert torch.equal(batched.labels, LABELS)


def test_given_labels_win() -> None:
    assert ImageSet.from_array(Rows(), "x", 1 - LABELS.clamp(max=1), (0, 1)).classes == 2


def test_pictures_and_torchvision(write_pictures: Callable[..., Path], real: SimpleNamespace) -> None:
    folder = write_pictures("cat/1.png", "dog/1.png", "dog/2.png")
    expected = load_images(folder)
    for source in (ImageFolder(folder), [real.picture(seed) for seed in range(3)]):
        found = ImageSet.from_array(source, "x")
        assert found.pixels.dtype == torch.uint8
        assert torch.equal(found.pixels, expected.pixels)
    assert ImageSet.from_array(ImageFolder(folder), "x").fingerprint == expected.fingerprint
    tensors = followed(DataLoader(ImageFolder(folder, ToTensor()), batch_size=2))
    assert torch.allclose(tensors.all(), expected.all(), atol=1e-6)
    assert ImageSet.from_array([real.picture(seed, mode="L") for seed in range(3)], "x").shape == (1, 6, 6)


def test_loaders_that_draw_or_drop_say_so(caplog: pytest.LogCaptureFixture) -> None:
    ImageSet.from_array(DataLoader(Rows(), batch_size=3, shuffle=True, drop_last=True), "mine", value_range=(0, 1))
    (said,) = caplog.messages
    assert "'mine' draws new images each time" in said
    assert "leaves out 1 of 7 images (drop_last); give its data set (loader.dataset) instead" in said


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"train": BYTES, "test": BYTES}, "a dict of train, test; give one of its parts"),
        (
            [{"x": UNIT[0], "y": 3}],
            "dicts of x, y, none of them image or img or pixel_values; give a list of their images",
        ),
        (DataLoader([{"picture": image} for image in UNIT]), "dicts of picture"),
        ([UNIT[0], UNIT[1, :, :4]], r"several sizes \(\(3, 5, 4\), \(3, 4, 4\)\)"),
        ([UNIT[0], BYTES[1]], "several types"),
        ([UNIT[0], "a.png"], "is no image but str"),
        ([()], "make no array|must be numbers|empty"),
        (TensorDataset(UNIT[:0]), "has no items"),
        (DataLoader(TensorDataset(UNIT[:0])), "has no batches"),
        ([[1.0, 2.0], [3.0]], "make no array"),
        ("photos", "must be numbers"),
    ],
)
def test_what_holds_no_images_gets_a_sentence(images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageSet.from_array(images, "mine", value_range=(0, 1))


def test_one_picture_is_no_set(real: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="given one picture; give a list"):
        ImageSet.from_array(real.picture(0), "mine")
    deep = [real.picture(0), real.picture(1).convert("F")]
    with pytest.raises(UserError, match=r"a picture of 'mine' is not an 8-bit image \(PIL mode F\)"):
        ImageSet.from_array(deep, "mine")


@pytest.mark.parametrize("images", [np.zeros((2, 4, 4)), [1], None, DataLoader(TensorDataset(UNIT))])
def test_load_images_says_how_to_make_a_set_of_anything_else(images: Any) -> None:
    with pytest.raises(UserError, match=r"given as an image set, not as \w+; write ImageSet\.from_array\(images"):
        load_images(images)
    with pytest.raises(UserError, match=r"not as PosixPath; write load_images\('photos'\)"):
        check_set(Path("photos"))
