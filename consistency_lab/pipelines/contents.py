"""What a folder of images holds: every picture once, by name, and what cannot be used, with the reason.

Every file is decoded once when it is listed, and dropped again: a damaged or transparent picture is known before anything is measured,
and the memory holds no more than one picture (but the arrays of .npz files, which are packed and must be read whole).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from consistency_lab.data.folders import files_below, left_out
from consistency_lab.data.formats import read_bytes, read_npy, read_npz
from consistency_lab.data.pictures import SUFFIXES, decode
from consistency_lab.errors import UserError, nearest_path
from consistency_lab.inputs import check_file
from consistency_lab.interop.units import OURS, Range, check_value_range, to_ours
from consistency_lab.pipelines.lossy import lossy_kind

ARRAYS = (".npy", ".npz")
_FRAME = re.compile(r"frames?[ _.-]*\d+$", re.IGNORECASE)


class Picture(NamedTuple):
    """Where a picture is: a file below the folder, or a row of an array file (-1 for a file of its own)."""

    file: str
    row: int = -1


class _Found(NamedTuple):
    """A picture that was read, by its name: where it is, (C, H, W), how it was compressed if with loss, and how many frames it has."""

    key: str
    picture: Picture
    shape: tuple[int, int, int]
    lossy: str = ""
    frames: int = 1


@dataclass(frozen=True)
class Contents:
    """The pictures of a folder or array file.

    Attributes:
        path: the folder, or the array file.
        pictures: by name: the path below the folder without suffix, in the order of their names, numbers by their value.
        shape: (C, H, W) of every one; C is 1 if all are grey and 3 otherwise.
        dropped: those that are not used, each with the reason.
        notes: what else a reader must know, each as what follows "folder: ".
        fingerprint: of all names and bytes.
        arrays: of the array files, by name.
        value_range: the values of black and white in arrays that are not bytes.
    """

    path: Path
    pictures: Mapping[str, Picture]
    shape: tuple[int, int, int]
    dropped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    fingerprint: str
    arrays: Mapping[str, np.ndarray]
    value_range: Range = OURS

    def read(self, picture: Picture) -> Tensor:
        """The picture, float32 ``(C, H, W)`` in [-1, 1]."""
        if picture.row < 0:
            where = self.path / picture.file
            pixels = _as_floats(decode(read_bytes(where), str(where))[0])
        else:
            pixels = _of_array(self.arrays[picture.file], picture.row, self.value_range)
        return pixels.expand(self.shape[0], -1, -1)


def contents_of(path: Path, value_range: tuple[float, float] | None = None) -> Contents:
    """List a folder of pictures and arrays, or an array file ``(N, H, W, C)``.

    What cannot be used is left out and named in ``dropped``: files that are damaged, partly transparent or of more than 8 bits, links that
    lead nowhere, pictures of another size than most, two files of one name (``a.png`` and ``a.jpg``).

    Raises:
        UserError: nothing there, nothing that can be used, or an array whose values are in no known range.
    """
    check_file(path)
    if path.is_dir():
        files, root = sorted(files_below(path, broken=True)), path
    elif path.suffix.lower() in ARRAYS and path.is_file():
        files, root = [path.name], path.parent
    elif path.exists():
        raise UserError(
            f"{path} is neither a folder of images nor an .npy or .npz file; unpack it, or name the folder."
        )
    else:
        raise UserError(
            f"there is no folder {path}; images:DIR takes a folder of images, or an .npy or .npz file.{nearest_path(path)}"
        )
    known = [name for name in files if PurePosixPath(name).suffix.lower() in {*SUFFIXES, *ARRAYS}]
    notes = [f"{note}." for note in left_out(set(files) - set(known))]
    own = OURS if value_range is None else check_value_range(value_range)
    digest = hashlib.sha256()
    found: list[_Found] = []
    dropped: list[tuple[str, str]] = []
    arrays: dict[str, np.ndarray] = {}
    for name in tqdm(known, desc=path.name, unit="file", disable=None, leave=False):
        key = PurePosixPath(name).with_suffix("").as_posix()
        if not (root / name).is_file():
            dropped.append((name, "is a link that leads nowhere"))
            continue
        if PurePosixPath(name).suffix.lower() in ARRAYS:
            array = arrays[name] = _array(root / name, value_range)
            digest.update(name.encode() + _digest(array))
            height, width = array.shape[1:3]
            shape = (array.shape[3], height, width)
            within = "" if not path.is_dir() else f"{key}/"
            found += [_Found(f"{within}{row}", Picture(name, row), shape) for row in range(len(array))]
            continue
        try:
            content = read_bytes(root / name)
            pixels, frames = decode(content, name)
        except UserError as error:
            dropped.append((name, str(error).removeprefix(name).strip().rstrip(".")))
            continue
        digest.update(name.encode() + hashlib.sha256(content).digest())
        channels, height, width = pixels.shape
        found.append(_Found(key, Picture(name), (channels, height, width), lossy_kind(content), frames))
    twice = {key for key, times in Counter(each.key for each in found).items() if times > 1}
    dropped += [
        (each.picture.file, "has the name of another, but for its ending") for each in found if each.key in twice
    ]
    found = [each for each in found if each.key not in twice]
    sizes = Counter(each.shape[1:] for each in found)
    if not sizes:
        reason = f"; {dropped[0][0]}: {dropped[0][1]}" if dropped else ""
        raise UserError(f"{path} holds no images that can be used{reason}.")
    most = sizes.most_common(1)[0][0]
    dropped += [
        (each.picture.file, f"is {each.shape[1]}x{each.shape[2]} and most are {most[0]}x{most[1]}")
        for each in found
        if each.shape[1:] != most
    ]
    found = sorted((each for each in found if each.shape[1:] == most), key=lambda each: natural(each.key))
    notes += _notes(found)
    return Contents(
        root,
        _without_shared_folders({each.key: each.picture for each in found}),
        (max(each.shape[0] for each in found), *most),
        tuple(dropped),
        tuple(notes),
        digest.hexdigest()[:16],
        arrays,
        own,
    )


def _notes(used: Sequence[_Found]) -> Iterator[str]:
    """What a reader must know of the pictures that are used."""
    if moving := sum(each.frames > 1 for each in used):
        yield f"only the first frame or page of {moving} of its files is used."
    if lossy := [each.lossy for each in used if each.lossy]:
        kinds = ", ".join(sorted(set(lossy)))
        yield (
            f"{len(lossy)} of its {len(used)} images are compressed lossily ({kinds}): what that changed is part of every distance; "
            "write PNG where you can."
        )
    if 0 < (grey := sum(each.shape[0] == 1 for each in used)) < len(used):
        yield f"{grey} of its {len(used)} images are grey and are read as three equal channels, as the others have three."


def clips_of(pictures: Mapping[str, Picture]) -> dict[str, tuple[Picture, ...]]:
    """The pictures by the folder that they lie in, a clip each: its frames in their order.

    Raises:
        UserError: pictures that lie in no sub-folder.
    """
    clips: dict[str, tuple[Picture, ...]] = {}
    for key, picture in pictures.items():
        clip, slash, _ = key.rpartition("/")
        if not slash:
            raise UserError(
                f"{key} lies in no sub-folder, and every clip is a sub-folder of frames, such as clip/frame_0001.png."
            )
        clips[clip] = (*clips.get(clip, ()), picture)
    return clips


def look_like_clips(pictures: Mapping[str, Picture]) -> bool:
    """Whether every picture is named as a frame of a clip is: ``clip/frame_0001``."""
    return all("/" in key and _FRAME.match(key.rpartition("/")[2]) for key in pictures)


def natural(name: str) -> list[tuple[int, str]]:
    """For sorting: numbers in a name count by their value, so that 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _without_shared_folders(pictures: Mapping[str, Picture]) -> dict[str, Picture]:
    """The same with the folders left out of the names that all of them lie in."""
    parents = [PurePosixPath(key).parent.parts for key in pictures]
    shared = 0
    while all(len(parts) > shared and parts[shared] == parents[0][shared] for parts in parents):
        shared += 1
    return {"/".join(PurePosixPath(key).parts[shared:]): picture for key, picture in pictures.items()}


def _as_floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1  # as ImageSet has it


def _of_array(array: np.ndarray, row: int, value_range: Range) -> Tensor:
    pixels = torch.from_numpy(np.array(array[row])).movedim(2, 0)
    return _as_floats(pixels) if array.dtype == np.uint8 else to_ours(pixels.float(), value_range)


def _array(path: Path, value_range: tuple[float, float] | None) -> np.ndarray:
    """An array of images ``(N, H, W, C)``, mapped into memory where the file allows it."""
    if path.suffix.lower() == ".npz":
        array = _only_array(path)
    else:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception:
            array = read_npy(path)  # says what is wrong with it
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is no array of numpy but a zip file; name it .npz.")
    if array.ndim == 3:
        array = array[..., None]
    if not array.size:
        raise UserError(f"{path} holds no images: its array {array.shape} is empty.")
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise UserError(
            f"{path} holds an array {array.shape}; images are (N, height, width, channels) with 1 or 3 channels."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path} holds an array of {array.dtype}; images are numbers.")
    low, high = np.inf, -np.inf
    for part in array:  # one image at a time
        numbers = part[~np.isnan(part)]
        if numbers.size:
            low, high = min(low, numbers.min()), max(high, numbers.max())
    if low > high:
        raise UserError(f"{path} holds no images: every value in it is NaN.")
    black, white = value_range or OURS
    if low < black or high > white or (value_range is None and low >= 0):
        raise UserError(
            f"{path} has values in [{low:.4g}, {high:.4g}]: say which are black and white with value_range=(lo, hi), for example (0, 1); "
            "in an address, range=0,1."
        )
    return array


def _only_array(path: Path) -> np.ndarray:
    """The images of an npz file: its only array, or the one of a usual name."""
    for key in ("images", "arr_0", "samples", "x"):
        try:
            return read_npz(path, key, "")[0]
        except UserError as error:
            if "has no array" not in str(error):
                raise
    with np.load(path, allow_pickle=False) as file:
        there = file.files
    if len(there) != 1:
        raise UserError(f"{path} holds the arrays {', '.join(there)}; images are expected under 'images' or 'arr_0'.")
    return read_npz(path, there[0], "")[0]


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.sha256(str((array.shape, array.dtype)).encode())
    for part in array:
        digest.update(part.tobytes())
    return digest.digest()
