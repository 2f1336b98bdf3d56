"""Images that somebody else's code has made, as a model to compare: a folder of pictures, an array, video frames as a folder a clip."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from consistency_lab.choices import whole
from consistency_lab.diffusion.model import model_table
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.pipelines.contents import Contents, Picture, clips_of, contents_of, look_like_clips

Order = Literal["name", "sorted"]


@dataclass(frozen=True, eq=False, repr=False)
class FolderModel:
    """A `GenerativeModel` that reads its images instead of making them; `load_folder_model` makes it.

    From which noise an image was made is not known to it. What is paired with what is agreed by name when two or more of them are compared
    (`pipelines.pairing`); by itself, image i is the i-th in the order of their names.

    Attributes:
        name: how tables call it.
        contents: where its pictures are.
        entries: by name, in the order of image numbers: a picture, or the frames of a clip.
        order: how it is to be paired.
        noise_seed: the user's word that image i was made from the shared noise i of that seed; None where it is not known.
        clips: whether an entry is a clip.
        frame: which frame of a clip is read, from 0; the frames of all clips are as many.
        facts: provenance for results.
    """

    name: str
    contents: Contents
    entries: Mapping[str, tuple[Picture, ...]]
    order: Order = "name"
    noise_seed: int | None = None
    clips: bool = False
    frame: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(C, H, W) of its images: nothing is known of the noise, and images of other shapes cannot be compared."""
        return self.contents.shape

    @property
    def names(self) -> tuple[str, ...]:
        """Of its images (or clips), in the order of their numbers."""
        return tuple(self.entries)

    @property
    def frames(self) -> int:
        """Frames of a clip; 1 for images."""
        return min(map(len, self.entries.values()))

    @property
    def notes(self) -> list[str]:
        """What a reader of its numbers must know, in sentences."""
        said = list(self.contents.notes)
        if dropped := self.contents.dropped:
            files = f"{len(dropped)} file{'s' if len(dropped) > 1 else ''}"
            first = "; ".join(f"{name} {reason}" for name, reason in dropped[:3])
            said.append(f"{files} left out: {first}{'; ...' if len(dropped) > 3 else ''}.")
        return [f"{self.name}: {each}" for each in said]

    def of(self, names: Sequence[str], channels: int | None = None) -> Self:
        """The same with those images alone, in that order; ``channels``: 3 to show grey images as RGB."""
        contents = self.contents
        if channels is not None and channels != contents.shape[0]:
            contents = replace(contents, shape=(channels, *contents.shape[1:]))
        return replace(self, contents=contents, entries={name: self.entries[name] for name in names})

    def at(self, frame: int) -> Self:
        """The same, of which that frame of every clip is read."""
        return replace(self, frame=frame)

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The images of those numbers, read now: float32 ``(N, C, H, W)`` in [-1, 1] on the CPU. The noise is not used.

        Raises:
            UserError: a number beyond its images, or a file that was changed since the folder was listed.
        """
        names = self.names
        if beyond := [index for index in indices if not 0 <= index < len(names)]:
            raise UserError(f"{self.name!r} holds {len(names)} images, so there is no image {beyond[0]}; lower count.")
        if not len(indices):
            return torch.empty(0, *self.contents.shape)
        images = [self.contents.read(self.entries[names[index]][self.frame]) for index in indices]
        if any(image.shape != self.contents.shape for image in images):
            raise UserError(
                f"an image of {self.contents.path} has another size than when it was listed; load the folder again."
            )
        return torch.stack(images)

    def __repr__(self) -> str:
        what = f"clips of {self.frames}" if self.clips else "images"
        return f"FolderModel({self.name!r}, {len(self.entries)} {what}, {'x'.join(map(str, self.contents.shape))})"

    def _repr_html_(self) -> str:
        return model_table("Folder", self)


def load_folder_model(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    order: Order = "name",
    clips: bool | None = None,
    noise_seed: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> FolderModel:
    """Images on disk as a model to compare: any generator's, any size. They are read while they are compared, a few at a time.

    Args:
        path: a folder of pictures (PNG, WebP, BMP, TIFF, JPEG; of 8 bits, opaque) and of .npy or .npz arrays ``(N, H, W, C)``, or such an
            array by itself. Sub-folders are labels (classes, prompts): the null is taken within them where each has two images.
        name: how tables call it; the folder's name by default.
        order: ``"name"``: paired by the path below the folder, without suffix, or by sorted order where folders share no name;
            ``"sorted"``: by sorted order in any case.
        clips: every sub-folder is a clip and its files are frames: the clip is the sample, its distance the mean over its frames, and its
            null the same frame of other clips. By default if all files are named so: ``clip/frame_0001.png``.
        noise_seed: your word that the image whose name ends in the number i was made from image i of ``SharedNoise(noise_seed)``; needed
            for a comparison with a model that makes its images then.
        value_range: values of black and white in arrays that are not bytes; (-1, 1) by default.

    Returns:
        The model. What cannot be used is left out, counted and named in its ``notes``, and in the warnings of a comparison: files that
        are damaged, partly transparent or of more than 8 bits, of another size than most, links that lead nowhere, or
        that share a name but for the suffix.

    Raises:
        UserError: no such folder, nothing in it that can be used, an unknown order, or arrays in no known range.
    """
    if order not in get_args(Order):
        raise UserError(f"order={order!r} is not known; write order='name' or order='sorted'.")
    if noise_seed is not None:
        whole("noise_seed", noise_seed)
    where = Path(path).expanduser()
    contents = contents_of(where, value_range)
    as_clips = look_like_clips(contents.pictures) if clips is None else bool(clips)
    entries = clips_of(contents.pictures) if as_clips else {key: (each,) for key, each in contents.pictures.items()}
    lengths = sorted({len(each) for each in entries.values()})
    if len(lengths) > 1:
        said = f"its clips have {lengths[0]} to {lengths[-1]} frames; the first {lengths[0]} of each are compared."
        contents = replace(contents, notes=(*contents.notes, said))
    channels, height, width = contents.shape
    facts: dict[str, Any] = {
        "kind": "images",
        "path": str(where),
        "images": len(entries),
        "size": f"{height}x{width}x{channels}",
        "fingerprint": contents.fingerprint,
        "noise": "not known: its images were read"
        if noise_seed is None
        else f"seed {noise_seed}, as its user says: its images were read",
    }
    if as_clips:
        facts["frames"] = lengths[0]
    if contents.dropped:
        facts["left_out"] = len(contents.dropped)
    return FolderModel(
        name or where.name or str(where.resolve().name), contents, entries, order, noise_seed, as_clips, 0, facts
    )
