"""Which image of one folder or recording belongs to which of another: agreed once, before they are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from consistency_lab.diffusion.model import GenerativeModel, MadeBefore
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.pipelines.matching import Recorded, matched, source
from consistency_lab.pipelines.origins import check_noise, twins

COUNT = 256  # samples by default, of models that can make any number
_NUMBER = re.compile(r"(\d+)$")
_NAMED = 3  # names that a sentence holds


@dataclass(frozen=True)
class Agreement:
    """What folders of images, or recordings, agreed on.

    Attributes:
        models: all models, the folders' images in one order: image i of one belongs to image i of the others.
        names: of the images, in that order; empty where there is no folder.
        labels: a number for the sub-folder of each image ``(N,)``; None where there are none with two images each.
        label_names: of those numbers.
        frames: of every clip, 1 for images.
        said: what a reader must know, in sentences.
        most: samples that there are; 0 where any number can be made.
        labelled_by: what the labels are.
    """

    models: list[GenerativeModel]
    names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()
    frames: int = 1
    said: tuple[str, ...] = ()
    most: int = 0
    labelled_by: str = "folders"

    def counted(self, count: int | None) -> int:
        """How many samples are compared: so many, or by default all that there are, or `COUNT`."""
        return count or (self.most or len(self.names) or COUNT if count is None else 0)


def agreed(models: Sequence[GenerativeModel], noise: SharedNoise, count: int | None = None) -> Agreement:
    """Pair the images of the folders among the models, by name or by order, and the samples of recordings (`pipelines.matching`).

    Pipelines make theirs now, one after the other: only one of them is in memory at a time.

    Images without a partner are left out, counted and named. The order is random, seeded by the noise's seed and the same whatever the
    order of the models: the first ``count`` are a fair sample, and neighbours are no more alike than others. Beside a model that makes
    its images, image i is the one whose name ends in the number i.

    Args:
        models: any; nothing is done where none is a folder.
        noise: whose seed shuffles, and which the models that make images start from.
        count: images that are wanted; all common ones by default.

    Raises:
        UserError: sizes that differ, clips and images, fewer images than are asked for, or folders that cannot be paired.
    """
    check_noise(models, noise)
    folders = [model for model in models if isinstance(model, FolderModel)]
    said = twins(models)
    models = _made(models, noise, count)
    if not folders and any(isinstance(model, Recorded) for model in models):
        found = matched(models, count)
        said += found.said
        return Agreement(
            found.models, found.names, found.labels, found.label_names, 1, tuple(said), found.most, "prompts or labels"
        )
    if not folders:
        return Agreement(list(models), said=tuple(said))
    _check(models, folders)
    said += [sentence for folder in folders for sentence in folder.notes]
    if len(folders) < len(models):
        names, aligned = _by_number(folders, count)
    else:
        names, aligned, more = _by_name_or_order(folders)
        said += more
        if count is not None and count > len(names):
            raise UserError(
                f"{count} images were asked for, and {_listed(folders)} have {len(names)} in common; lower count."
            )
        order = np.random.default_rng(noise.seed).permutation(len(names))[:count].tolist()
        names, aligned = [names[i] for i in order], [[each[i] for i in order] for each in aligned]
    channels = max(folder.contents.shape[0] for folder in folders)
    if grey := [folder for folder in folders if folder.contents.shape[0] < channels]:
        said.append(
            f"{_listed(grey)}: grey images beside those of {_listed([each for each in folders if each not in grey])}, which have "
            f"{channels} channels; they are read as {channels} equal ones."
        )
    paired = iter(folder.of(each, channels) for folder, each in zip(folders, aligned, strict=True))
    labels, label_names, why = _labels(names)
    frames = min(folder.frames for folder in folders)
    if len({folder.frames for folder in folders}) > 1:
        said.append(
            f"the clips of {_listed(folders)} differ in length; the first {frames} frames of each are compared."
        )
    return Agreement(
        [next(paired) if isinstance(model, FolderModel) else model for model in models],
        tuple(names),
        labels,
        label_names,
        frames,
        (*said, *why),
    )


def _made(models: Sequence[GenerativeModel], noise: SharedNoise, count: int | None) -> list[GenerativeModel]:
    """The models, those that must make all samples before any is compared as what they made."""
    held = [len(model.entries) for model in models if isinstance(model, FolderModel)]
    held += [len(source(model).samples) for model in models if isinstance(model, Recorded)]
    wanted = range(count or min(held, default=COUNT))
    return [model.made(noise, wanted) if isinstance(model, MadeBefore) else model for model in models]


def _check(models: Sequence[GenerativeModel], folders: Sequence[FolderModel]) -> None:
    first = folders[0]
    for folder in folders[1:]:
        (height, width), (other_height, other_width) = first.contents.shape[1:], folder.contents.shape[1:]
        if (height, width) != (other_height, other_width):
            raise UserError(
                f"the images of {first.name!r} are {height}x{width} and those of {folder.name!r} {other_height}x{other_width}; "
                "make them again at one size (resizing here would change every distance)."
            )
        if folder.clips != first.clips:
            clips, images = (first, folder) if first.clips else (folder, first)
            raise UserError(
                f"{clips.name!r} holds clips and {images.name!r} images; give clips=True or clips=False for both."
            )
    if len(folders) == len(models):
        return
    live = next(model.name for model in models if not isinstance(model, FolderModel))
    if first.clips:
        raise UserError(
            f"{first.name!r} holds clips and {live!r} makes images; compare clips with clips, or give clips=False."
        )


def _by_number(folders: Sequence[FolderModel], count: int | None) -> tuple[list[str], list[list[str]]]:
    """Image i of each is the one whose name ends in the number i."""
    numbered = []
    for folder in folders:
        numbers = {int(found[1]): name for name in folder.names if (found := _NUMBER.search(name))}
        wanted = range(len(folder.names) if count is None else count)
        missing = [i for i in wanted if i not in numbers]
        if len(numbers) < len(folder.names) or missing:
            lacks = f"no image {missing[0]}" if missing else "names without a number, or one twice"
            raise UserError(
                f"{folder.name!r} has {lacks}: beside a model that makes its images, names end in the number of their noise, from 0 on "
                "(sample_0000.png, sample_0001.png, ...), one for each of count."
            )
        numbered.append([numbers[i] for i in wanted])
    return numbered[0], numbered


def _by_name_or_order(folders: Sequence[FolderModel]) -> tuple[list[str], list[list[str]], list[str]]:
    """The common names, the names in each folder, and sentences."""
    held = [set(folder.names) for folder in folders]
    common = [name for name in folders[0].names if all(name in names for names in held)]
    if common and all(folder.order == "name" for folder in folders):
        said = []
        for folder in folders:
            if alone := [name for name in folder.names if name not in set(common)]:
                first = ", ".join(alone[:_NAMED]) + (", ..." if len(alone) > _NAMED else "")
                said.append(
                    f"{folder.name}: {len(alone)} of its {len(folder.names)} images have no partner of their name in every folder and are "
                    f"left out: {first}."
                )
        common.sort()
        return common, [common] * len(folders), said
    if len({len(folder.names) for folder in folders}) > 1:
        told = " and ".join(f"{folder.name!r} {len(folder.names)}" for folder in folders)
        why = "are to be paired by order" if common else "share no names"
        raise UserError(
            f"the folders {why} and hold unequally many images ({told}), so it is not known which belong together; give them names in "
            "common."
        )
    first = ", ".join(folder.names[0] for folder in folders)
    shared = "" if common else ", of which they share none"
    warning = (
        f"{_listed(folders)} were paired by the sorted order of their names{shared}: {first} first. If they were not made in that order, "
        "no number here means anything."
    )
    return list(folders[0].names), [list(folder.names) for folder in folders], [warning]


def _labels(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """A number for the sub-folder of each image, where all lie in some and each holds two or more."""
    parents = [name.rpartition("/")[0] for name in names]
    counts = Counter(parents)
    if len(counts) < 2:
        return None, (), []
    if few := [parent for parent in counts if counts[parent] < 2]:
        said = (
            f"{len(few)} of {len(counts)} sub-folders hold one image only (first {few[0] or '.'}), so there is no other noise under "
            "its label: the null is over all images, and counts what the label alone decides as agreement."
        )
        return None, (), [said]
    known = sorted(counts)
    return np.array([known.index(parent) for parent in parents], dtype=np.int32), tuple(known), []


def _listed(folders: Sequence[FolderModel]) -> str:
    return " and ".join(repr(folder.name) for folder in folders)
