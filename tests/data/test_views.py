"""Crop, resize and grey."""

import numpy as np
import pytest
import torch
from PIL import Image

from consistency_lab.data.views import View
from consistency_lab.errors import UserError

PHOTO = torch.randint(0, 256, (3, 3, 12, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_without_options_nothing_changes() -> None:
    assert torch.equal(View().apply(PHOTO, "x"), PHOTO)
    assert str(View()) == ""
    assert str(View(crop=10, size=5, grey=True)) == "/crop10/5px/grey"


def test_crop_keeps_the_centre() -> None:
    cropped = View(crop=4).apply(PHOTO, "x")
    assert torch.equal(cropped, PHOTO[:, :, 4:8, 8:12])
    assert cropped.is_contiguous()


def test_size_takes_the_largest_centred_square_and_stretches_nothing() -> None:
    assert torch.equal(View(size=12).apply(PHOTO, "x"), PHOTO[:, :, :, 4:16])
    square = PHOTO[:, :, :, 4:16].contiguous()
    assert torch.equal(View(size=6).apply(PHOTO, "x"), View(size=6).apply(square, "x"))


def test_resizing_down_is_antialiased_as_in_pil() -> None:
    square = PHOTO[:1, :, :, :12]
    ours = View(size=5).apply(square, "x")[0].permute(1, 2, 0).numpy().astype(int)
    image = Image.fromarray(square[0].permute(1, 2, 0).numpy())
    theirs = np.array(image.resize((5, 5), Image.Resampling.BILINEAR)).astype(int)
    assert abs(ours - theirs).max() <= 1
    # A checkerboard of single pixels averages to grey; without antialiasing it would stay black and white.
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255).to(torch.uint8)[None, None]
    small = View(size=8).apply(board, "x")
    assert (small.int() - 127).abs().max() <= 20


def test_grey_is_the_luma_of_pil() -> None:
    ours = View(grey=True).apply(PHOTO, "x")
    assert ours.shape == (3, 1, 12, 20)
    theirs = np.array(Image.fromarray(PHOTO[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert abs(ours[0, 0].numpy() - theirs).max() <= 1
    assert torch.equal(View(grey=True).apply(ours, "x"), ours)


def test_floats_stay_floats_in_range() -> None:
    floats = torch.where(torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)
    floats[0] = 1.0
    for size in (4, 7, 20):
        small = View(size=size).apply(floats, "x")
        assert small.dtype == torch.float32
        assert small.shape == (4, 1, size, size)
        assert small.abs().max() <= 1
        assert torch.allclose(small[0], torch.ones(()))


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = View(size=5, grey=True).apply(PHOTO, "x")
    monkeypatch.setattr("consistency_lab.data.views._CHUNK_BYTES", 1)
    assert torch.equal(View(size=5, grey=True).apply(PHOTO, "x"), whole)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UserError, match="cannot crop 13 pixels from 'photos', 12x20"):
        View(crop=13).apply(PHOTO, "'photos'")
    with pytest.raises(UserError, match="has 2"):
        View(grey=True).apply(PHOTO[:, :2], "x")
    for options in ({"size": 0}, {"size": "8"}, {"crop": -1}, {"crop": 2.0}, {"size": True}, {"grey": 1}):
        with pytest.raises(UserError, match=next(iter(options))):
            View(**options)
