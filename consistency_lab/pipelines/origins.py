"""Where images that are read come from: from which noise they were made, as far as it is known, and whether two are one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.pipelines.matching import Recorded, source

Read = FolderModel | Recorded


def check_noise(models: Sequence[GenerativeModel], noise: SharedNoise) -> None:
    """Raise `UserError` for images of other noise, and for images of unknown noise where pairs are agreed by its numbers.

    Folders among themselves are paired by name, and recordings by name or number: there, noise that nobody declared may be the same.
    """
    read = [model for model in models if isinstance(model, Read)]
    seeds = {model.name: _seed(model) for model in read}
    known = {name: seed for name, seed in seeds.items() if seed is not None}
    if len(set(known.values())) > 1:
        told = " and ".join(f"{name!r} from seed {seed}" for name, seed in known.items())
        raise UserError(f"images of other noise are not compared ({told}); make them from the same.")
    live = next((model.name for model in models if not isinstance(model, Read)), None)
    if live is None and len({isinstance(model, FolderModel) for model in read}) > 1:
        for model in read:
            if _seed(model) is None:
                other = next(each for each in read if isinstance(each, FolderModel) != isinstance(model, FolderModel))
                wanted = next(iter(known.values()), noise.seed)
                raise UserError(
                    f"{_what(model)} its images is not known, and {other.name!r} is a {_kind(other)}: image i of one belongs to image i "
                    f"of the other only if both were made from one noise. {_say(model, wanted)}"
                )
    if live is not None:
        for model in read:
            if (seed := _seed(model)) != noise.seed:
                state = "is not known" if seed is None else f"is said to be seed {seed}"
                raise UserError(
                    f"{_what(model)} its images {state}, and {live!r} makes its images from seed {noise.seed}. {_say(model, noise.seed)}"
                )


def twins(models: Sequence[GenerativeModel]) -> list[str]:
    """A sentence for each folder, file or run that was given more than once."""
    places: dict[Hashable, list[str]] = {}
    for model in models:
        if place := _place(model):
            places.setdefault(place, []).append(model.name)
    return [
        f"{' and '.join(map(repr, names))} are one and the same: what they agree in is no finding."
        for names in places.values()
        if len(names) > 1
    ]


def _place(model: GenerativeModel) -> Hashable:
    if isinstance(model, FolderModel):
        return Path(model.facts["path"]).resolve() if "path" in model.facts else None
    if isinstance(model, Recorded):
        return tuple(part.path.resolve() for part in source(model).parts)
    return repr(model.facts) if model.facts.get("run") else None


def _seed(model: Read) -> int | None:
    return model.noise_seed if isinstance(model, FolderModel) else source(model).noise_seed


def _kind(model: Read) -> str:
    return "folder" if isinstance(model, FolderModel) else "recording"


def _what(model: Read) -> str:
    return f"{model.name!r} is a {_kind(model)}: the noise of"


def _say(model: Read, seed: int) -> str:
    """How to declare it."""
    where = (
        f"load_folder_model(..., noise_seed={seed}), or images:DIR?noise_seed={seed}"
        if isinstance(model, FolderModel)
        else f"facts={{'noise_seed': {seed}}} where it is recorded"
    )
    return f"If they were made from seed {seed}, image i from noise i, say so: {where}."
