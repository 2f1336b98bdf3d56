"""Images from a folder or a zip of image files; sub-folders are classes."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import torch
from tqdm.auto import tqdm

from consistency_lab.data.formats import read_bytes
from consistency_lab.data.pictures import SUFFIXES, decode
from consistency_lab.data.views import View
from consistency_lab.errors import UserError
from consistency_lab.inputs import check_file, check_fits

_OF_THE_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # of Windows; what others leave behind begins with a dot
_TRAINING, _HELD_OUT = {"train", "training"}, {"val", "valid", "validation", "test", "testing", "dev"}

_logger = logging.getLogger(__name__)


def read_folder(path: Path, view: View, only: Set[str] | None = None) -> tuple[torch.Tensor, list[str]]:
    """Every image below a folder (links are followed) or in a zip, in the order of their names.

    Hidden files and ``__MACOSX`` are passed over. What else is left out is counted in one warning: files of other kinds, all frames
    and pages but the first, and what a zip holds under a name that comes again later.

    Args:
        path: a folder or a .zip file.
        view: applied to each image as it is read, so that only the result is kept in memory.
        only: file names (without folders) to keep, each of which must be there once; all when left out.

    Returns:
        uint8 pixels (N, C, H, W), C being 1 if all are grey and 3 otherwise, and the N names, relative, with "/".

    Raises `UserError`, naming the file, for one that cannot be decoded, is not 8 bits deep, is partly transparent or
    has another size than the first; for a folder without images; and for a file of ``only`` that is missing or there twice.
    """
    with _opened(path) as (files, read, notes):
        names = sorted(name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES)
        if only is None:
            notes += left_out(set(files) - set(names))
        else:
            names = [name for name in names if PurePosixPath(name).name in only]
        if not names:
            kinds = ", ".join(sorted(SUFFIXES))
            said = "".join(f"; {note}" for note in notes)
            raise UserError(f"{path} holds no images{'' if only is None else ' of that split'} ({kinds}){said}.")
        if only is not None:
            _check_complete(path, names, only)
        images: list[torch.Tensor] = []
        several: list[str] = []
        for name in tqdm(names, desc=path.name, unit="image", disable=None, leave=False):
            what = f"{path / name}"
            pixels, frames = decode(read(name), what)
            if frames > 1:
                several.append(f"{name} with {frames}")
            images.append(view.apply(pixels[None], what)[0])
            if images[-1].shape[1:] != images[0].shape[1:]:
                first, other = ("x".join(map(str, image.shape[1:])) for image in (images[0], images[-1]))
                raise UserError(
                    f"{path} holds images of several sizes ({names[0]} is {first}, {name} is {other}); "
                    "give size=... to resize them."
                )
    if several:
        notes.append(f"only the first frame or page of {_counted(several, 'file')}")
    if notes:
        _logger.warning("%s: %s.", path, "; ".join(notes))
    channels = max(len(image) for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images]), names


def classes_of(names: list[str], what: str) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (N,) and class names: the sub-folders at the first level where the names differ; None and () without such.

    Raises `UserError` if some lie in sub-folders and some beside them, and if the sub-folders are the splits of a set.
    """
    parents = [PurePosixPath(name).parent.parts for name in names]
    splits = sorted({part for parts in parents for part in parts if part.lower() in _TRAINING | _HELD_OUT})
    lower = {part.lower() for part in splits}
    if lower & _TRAINING and lower & _HELD_OUT:
        raise UserError(
            f"{what} holds the folders {', '.join(splits)}, which are the splits of a set and no classes; give the path of one of them "
            "(unpack a zip first)."
        )
    levels = enumerate(zip(*parents, strict=False))
    shared = next((i for i, level in levels if len(set(level)) > 1), min(map(len, parents)))
    below = [parts[shared : shared + 1] for parts in parents]
    if not any(below):
        return None, ()
    if not all(below):
        stray = names[below.index(())]
        raise UserError(
            f"{what} mixes sub-folders, which would be classes, with images beside them ({stray}); separate them."
        )
    class_names = sorted({name for (name,) in below})
    return torch.tensor([class_names.index(name) for (name,) in below], device="cpu"), tuple(class_names)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes], list[str]]]:
    """Names of the files but hidden ones, a function that reads one, and what to report of those that it skips."""
    if path.is_dir():
        yield files_below(path), lambda name: read_bytes(path / name), []
        return
    check_file(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception:  # a damaged archive raises whatever its bytes happen to mean
        raise UserError(f"{path} is neither a folder nor a readable zip file of images.") from None
    # Zips made on Windows may hold backslashes. The last file of a name is the one that unpacking leaves.
    names = [info.filename.replace("\\", "/") for info in archive.infolist()]
    members = {name: info for name, info in zip(names, archive.infolist(), strict=True) if not name.endswith("/")}

    def read(name: str) -> bytes:
        check_fits(members[name].file_size, path / name)
        try:
            return archive.read(members[name])
        except Exception:
            raise UserError(f"{path / name} is damaged or locked in its zip file; fetch {path.name} again.") from None

    visible = _visible(members)
    again = sorted(name for name, times in Counter(names).items() if times > 1 and name in set(visible))
    notes = [f"only the last of each of {_counted(again, 'name')} that it holds twice"] if again else []
    with archive:
        yield visible, read, notes


def files_below(folder: Path, *, broken: bool = False) -> list[str]:
    """Relative names of all files but hidden ones, through links to folders too; a link into a folder above is not followed again.

    Args:
        folder: where to look.
        broken: name links that lead nowhere too.

    Raises `UserError` for a folder that cannot be read, and for a link that leads nowhere unless those are asked for.
    """

    def unreadable(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}.")

    names: list[str] = []
    above = {os.fspath(folder): frozenset([os.path.realpath(folder)])}
    for root, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        for file in (Path(root, name) for name in files):
            if file.is_file() or (broken and file.is_symlink()):
                names.append(file.relative_to(folder).as_posix())
            elif file.is_symlink():
                raise UserError(f"{file} is a link to {os.readlink(file)}, which is not there; mend or remove it.")
        inside = {name: os.path.realpath(os.path.join(root, name)) for name in folders}
        folders[:] = [name for name in folders if inside[name] not in above[root]]
        above |= {os.path.join(root, name): above[root] | {inside[name]} for name in folders}
    return _visible(names)


def _visible(names: Collection[str]) -> list[str]:
    def hidden(name: str) -> bool:
        parts = PurePosixPath(name).parts
        beside = not parts or parts[-1].lower() in _OF_THE_SYSTEM  # a damaged zip may hold a file without a name
        return beside or any(part.startswith((".", "__MACOSX")) for part in parts)

    return [name for name in names if not hidden(name)]


def left_out(names: Collection[str]) -> list[str]:
    """What to report of files whose names are not those of pictures: how many of which kind, and the first."""
    if not names:
        return []
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without ending" for name in names)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return [f"left out {_counted(sorted(names), 'file')} of other kinds: {listed}"]


def _counted(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} (first {names[0]})"


def _check_complete(path: Path, names: list[str], only: Set[str]) -> None:
    times = Counter(PurePosixPath(name).name for name in names)
    missing, twice = sorted(only - set(times)), sorted(name for name, count in times.items() if count > 1)
    if missing:
        raise UserError(
            f"{path} lacks {len(missing):,} of the {len(only):,} images asked for (first {missing[0]}); fetch it again, whole."
        )
    if twice:
        raise UserError(f"{path} holds {_counted(twice, 'image')} in several folders; leave one of each.")
