"""Images in, images out: ranges, shapes, splits, fingerprints, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError

BYTES = torch.randint(0, 256, (20, 3, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(20) % 3


@pytest.fixture
def images() -> ImageSet:
    return ImageSet("bytes", BYTES, LABELS)


def test_bytes_become_floats_in_minus_one_to_one(images: ImageSet) -> None:
    assert images.shape == (3, 5, 4)
    assert len(images) == 20
    assert images.pixels.dtype == torch.uint8
    batch = images.batch([4, 0])
    assert batch.dtype == torch.float32
    assert torch.equal(batch, BYTES[[4, 0]].float() / 127.5 - 1)
    assert torch.equal(images.all()[[4, 0]], batch)
    ends = ImageSet("ends", torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).all()
    assert ends.flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("indices", [[1, 2], np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)])
def test_indices_may_be_any_whole_numbers(images: ImageSet, indices: object) -> None:
    assert torch.equal(images.batch(indices), images.all()[1:3])


@pytest.mark.parametrize("indices", [[20], [-1], [], [0.5], [[1]], [True, False]])
def test_other_indices_are_refused(images: ImageSet, indices: object) -> None:
    with pytest.raises(UserError, match="indices into 'bytes'"):
        images.batch(indices)


def test_the_fingerprint_covers_pixels_and_labels_but_not_the_name(images: ImageSet) -> None:
    again = ImageSet("another name", BYTES.clone(), LABELS.clone())
    assert again.fingerprint == images.fingerprint
    changed = BYTES.clone()
    changed[19, 2, 4, 3] ^= 1
    others = [
        ImageSet("x", changed, LABELS),
        ImageSet("x", BYTES),
        ImageSet("x", BYTES, LABELS.flip(0)),
        ImageSet("x", BYTES, LABELS, ("a", "b", "c", "d")),
        ImageSet("x", BYTES.view(20, 3, 4, 5), LABELS),
        ImageSet("x", images.all(), LABELS),
    ]
    assert len({images.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_the_fingerprint_is_the_same_in_chunks_and_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = ImageSet("golden", torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6))
    monkeypatch.setattr("consistency_lab.data.imageset._FINGERPRINT_CHUNK", 2)
    in_chunks = ImageSet("golden", golden.pixels, golden.labels)
    assert in_chunks.fingerprint == golden.fingerprint
    assert golden.fingerprint == "396f02a51a20b54a160754290786e782cf53ca4c33c8bc87624bc5045e5a8f75"


def test_splits_are_disjoint_and_depend_on_the_seed_alone(images: ImageSet) -> None:
    first, second = images.split(12, 8, seed=3)
    assert (first.name, second.name) == ("bytes/split0-of-2@seed3", "bytes/split1-of-2@seed3")
    rows = {tuple(image.flatten().tolist()) for part in (first, second) for image in part.pixels}
    assert len(rows) == 20
    again, _ = images.split(12, 8, seed=3)
    other, _ = images.split(12, 8, seed=4)
    assert again.fingerprint == first.fingerprint
    assert other.fingerprint != first.fingerprint
    assert first.classes == second.classes == 3
    for part in (first, second):
        assert part.labels is not None
        for image, label in zip(part.pixels, part.labels, strict=True):
            (place,) = (image == BYTES).flatten(1).all(1).nonzero().flatten()
            assert LABELS[place] == label


def test_the_order_of_a_split_is_fixed_for_good() -> None:
    numbered = ImageSet("numbered", torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1))
    (part,) = numbered.split(8, seed=0)
    assert part.pixels.flatten().tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


@pytest.mark.parametrize("sizes", [(21,), (10, 11), (), (0,), (-1, 3), (1.5,), (True,)])
def test_sizes_that_do_not_fit_are_refused(images: ImageSet, sizes: tuple) -> None:
    with pytest.raises(UserError, match="cannot split 'bytes'"):
        images.split(*sizes)
    with pytest.raises(UserError, match="seed of a split"):
        images.split(2, seed=-1)


def test_a_part_keeps_the_classes(images: ImageSet) -> None:
    part = images.take([0, 3], "zeros")
    assert part.labels is not None
    assert part.labels.tolist() == [0, 0]
    assert part.classes == 3
    assert ImageSet("plain", BYTES).classes == 0


def test_it_is_frozen_and_moves(images: ImageSet) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.name = "other"  # type: ignore[misc]
    fingerprint = images.fingerprint
    moved = images.to("cpu")
    assert moved.device.type == "cpu"
    assert moved.fingerprint == fingerprint
    assert "20 images" in repr(images)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 8, 9), (1, 8, 9)), ((6, 8, 9, 3), (3, 8, 9)), ((6, 3, 8, 9), (3, 8, 9)), ((6, 8, 8, 1), (1, 8, 8))],
)
def test_every_layout_is_understood(shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = ImageSet.from_array(array, "array")
    assert images.shape == expected
    assert images.pixels.is_contiguous()
    assert torch.equal(ImageSet.from_array(torch.from_numpy(array), "tensor").pixels, images.pixels)
    if len(shape) == 4 and shape[3] == 3:
        assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), array)


def test_channels_says_which_axis_holds_them_where_both_could() -> None:
    points = np.random.default_rng(0).normal(size=(5, 2, 1, 1)).clip(-1, 1)
    first = ImageSet.from_array(points, "points", channels="first")
    assert first.shape == (2, 1, 1)
    assert np.allclose(first.all().numpy(), points)
    last = ImageSet.from_array(points, "points", channels="last")
    assert last.shape == (1, 2, 1)
    assert ImageSet.from_array(np.zeros((5, 8, 8, 4), np.uint8), "x", channels="last").shape == (4, 8, 8)
    assert ImageSet.from_array(np.zeros((5, 3, 8, 3), np.uint8), "x", channels="last").shape == (3, 3, 8)
    # The advice for an array with three axes.
    array = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert ImageSet.from_array(array[None], "x").shape == (3, 8, 9)
    assert ImageSet.from_array(array[:, None], "x", channels="first").shape == (1, 9, 3)


def test_dark_bytes_are_taken_when_it_is_said_what_they_mean() -> None:
    mask = np.eye(4, dtype=np.uint8)[None]
    assert ImageSet.from_array(mask, "x", value_range=(0, 1)).all().unique().tolist() == [-1, 1]
    assert torch.equal(
        ImageSet.from_array(mask, "x", value_range=(0, 255)).pixels[0, 0], torch.eye(4, dtype=torch.uint8)
    )


def test_labels_that_skip_numbers_make_no_class_without_images(caplog: pytest.LogCaptureFixture) -> None:
    pixels = torch.zeros(11, 1, 2, 2, dtype=torch.uint8)
    numbers = [*range(1, 11), 255]  # 1 to 10, and "ignore"
    for labels in (torch.tensor(numbers), np.array(numbers, np.uint8), numbers):
        caplog.clear()
        images = ImageSet.from_array(pixels, "gaps", labels)
        assert images.labels is not None
        assert images.labels.tolist() == list(range(11))
        assert images.class_names == tuple(map(str, numbers))
        assert images.classes == 11
        (said,) = caplog.messages
        assert "'gaps' skip numbers (11 of 0..255 are there): they are renumbered 0..10" in said
    assert ImageSet("gaps", pixels, torch.tensor(numbers)).fingerprint == images.fingerprint
    caplog.clear()
    part = images.take([10, 0], "part")
    assert (part.labels.tolist(), part.class_names[10]) == ([10, 0], "255")  # type: ignore[union-attr]
    named = ImageSet.from_array(pixels[:2], "named", [0, 2], class_names=("a", "b", "c"))
    assert (named.labels.tolist(), named.classes) == ([0, 2], 3)  # type: ignore[union-attr]
    assert caplog.messages == []


def test_value_range_is_mapped_to_minus_one_to_one() -> None:
    array = np.array([0.0, 4.0, 8.0, 16.0]).reshape(1, 2, 2)
    assert ImageSet.from_array(array, "x", value_range=(0, 16)).all().flatten().tolist() == [-1, -0.5, 0, 1]
    assert ImageSet.from_array(array.astype(">i2"), "x", value_range=(0, 16)).all().sum() == -0.5
    signed = array / 8 - 1
    assert ImageSet.from_array(signed, "x").all().flatten().tolist() == signed.flatten().tolist()
    assert ImageSet.from_array(abs(signed), "x", value_range=(-1, 1)).all().min() == 0


def test_the_array_is_copied_not_shared() -> None:
    array = np.zeros((2, 4, 4), dtype=np.uint8)
    images = ImageSet.from_array(array[::-1], "x")
    array[:] = 9
    assert images.pixels.sum() == 0


NAN = np.zeros((2, 4, 4)) - 0.5
NAN[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((4, 4), np.uint8), {}, r"shape \(4, 4\)"),
        (np.zeros((2, 5, 5, 5), np.uint8), {}, "which axis"),
        (np.zeros((2, 3, 3, 3), np.uint8), {}, "which axis"),
        (np.zeros((5, 2, 1, 1), np.uint8), {}, r"which axis of \(5, 2, 1, 1\).*channels='first' .* or channels='last'"),
        (np.zeros((5, 8, 3, 3), np.uint8), {}, "which axis"),
        (np.zeros((5, 4, 8, 8), np.uint8), {}, "which axis"),
        (np.zeros((8, 8, 3), np.uint8), {}, r"one image with its channels or 8 grey ones; write array\[None\]"),
        (np.zeros((3, 8, 8), np.uint8), {}, "one image with its channels or 3 grey ones"),
        (np.zeros((2, 4, 4), np.uint8), {"channels": "both"}, "channels of the images 'mine' must be 'first'"),
        (
            np.eye(4, dtype=np.uint8)[None],
            {},
            r"bytes of at most 1, nearly black.*value_range=.*\(0, 1\), or \(0, 255\)",
        ),
        (15 * np.eye(4, dtype=np.uint8)[None], {}, "bytes of at most 15"),
        (np.zeros((0, 3, 8, 8), np.uint8), {}, "empty"),
        (NAN, {}, "NaN"),
        (np.full((2, 4, 4), np.inf), {"value_range": (0, 1)}, "NaN or infinite"),
        (np.full((2, 4, 4), 0.5), {}, r"value_range=\(lo, hi\), for example \(0, 1\)"),
        (np.full((2, 4, 4), -3.0), {}, "value_range"),
        (np.full((2, 4, 4), 3.0), {"value_range": (0, 1)}, "outside value_range"),
        (np.zeros((2, 4, 4)), {"value_range": (1, 1)}, "lo < hi"),
        (np.zeros((2, 4, 4)), {"value_range": (1,)}, "lo < hi"),
        (np.zeros((2, 4, 4), np.longdouble), {"value_range": (0, 1)}, "at most 64 bits"),
        (torch.zeros(2, 4, 4, dtype=torch.complex64), {}, "real numbers"),
        (np.zeros((2, 4, 4), np.int64), {}, "int64"),
        (np.zeros((2, 4, 4), complex), {}, "must be numbers"),
        (np.full((2, 4, 4), None), {}, "must be numbers"),
        (np.zeros((2, 4, 4), np.uint8), {"labels": [0]}, "for each of its 2 images"),
        (np.zeros((2, 4, 4), np.uint8), {"labels": [0.0, 1.0]}, "whole numbers"),
        (np.zeros((2, 4, 4), np.uint8), {"labels": [0, -1]}, "count from 0"),
        (np.zeros((2, 4, 4), np.uint8), {"labels": [0, 2], "class_names": ("a", "b")}, "2 class names but a label 2"),
        (np.zeros((2, 4, 4), np.uint8), {"class_names": ("a",)}, "no labels"),
    ],
)
def test_one_clear_sentence_for_what_cannot_be_used(array: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ImageSet.from_array(array, "mine", **options)
    assert "'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 1, 4, 4, dtype=torch.float64), "float64"),
        (np.zeros((2, 1, 4, 4), np.uint8), "ndarray"),
        (torch.zeros(2, 4, 4), r"\(N, C, H, W\)"),
        (torch.zeros(0, 1, 4, 4), "empty"),
        (torch.full((2, 1, 4, 4), 1.001), "outside"),
        (torch.full((2, 1, 4, 4), torch.nan), "NaN"),
    ],
)
def test_the_constructor_refuses_what_is_not_ready(pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageSet("mine", pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits(images: ImageSet) -> None:
    every_byte = ImageSet("ramp", torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1))
    assert torch.equal(every_byte.to("cuda").all().cpu(), every_byte.all())
    assert torch.equal(every_byte.batch([7], device="cuda").cpu(), every_byte.batch([7]))
    on_gpu = images.to("cuda")
    assert on_gpu.fingerprint == images.fingerprint
    assert ImageSet("x", on_gpu.pixels, images.labels).fingerprint == images.fingerprint
