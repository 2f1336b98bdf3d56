"""Files of recorded trajectories: what they must hold, read and written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors
import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import StoreError, UserError, naming, nearest_path
from consistency_lab.inputs import check_archive
from consistency_lab.json_text import parsed
from consistency_lab.pipelines.recording import BY_STEP, SAID, Part, RecordedImages, Recording, Space
from consistency_lab.store.atomic import as_path, atomic_path
from consistency_lab.store.checkpoint import check_tensors, save_tensors

FORMATS = (".safetensors", ".npz")
_AXES = ("t", "times", "sigmas", "alphas", "log_snr")


def load_recording(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    space: Space = "latents",
) -> Recording | RecordedImages:
    """A trajectory from a file, as a model to compare: the way to compare an engine that cannot be called from here.

    The file is safetensors, or npz. It holds ``latents (step, sample, ...)``, optionally ``x0`` of that shape (what the engine expects the
    data to be) and ``images (sample, C, H, W)`` in [-1, 1], in float64, float32, float16 or bfloat16 (images also as bytes, 0 to 255); and
    the level of every step as one of

    * ``sigmas`` and ``alphas (step,)``, of x_t = alpha x0 + sigma eps: the log-SNR is ln(alpha² / sigma²);
    * ``log_snr (step,)``, with ``t`` beside it or not;
    * ``times (step,)`` in [0, 1], 1 is noise: those of the schedule that the facts name, of flow matching if they name none.

    Names, prompts and labels of samples, and facts, are optional: in safetensors under the metadata key ``consistency_lab`` as a JSON
    object ``{"names": [...], "prompts": [...], "labels": [...], "facts": {...}}``; in npz as arrays of these names, ``facts`` as JSON text.
    `Recorder` writes such files.

    Args:
        path: the file, or several whose samples follow one another.
        name: how tables call it; the file's name by default.
        space: ``"latents"``: compared along t; ``"pixels"``: its final images alone.

    Raises:
        UserError: something is missing, or shapes or levels do not fit.
        StoreError: no such file, or one that is damaged.

    >>> import numpy as np
    >>> np.savez(path, latents=latents, sigmas=sigmas, alphas=1 - sigmas)  # doctest: +SKIP
    >>> load_recording("engine.npz")  # doctest: +SKIP
    """
    if space not in get_args(Space):
        raise UserError(f"space={space!r} is not known; write space='latents' or space='pixels'.")
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise UserError("a recording needs one file or more.")
    opened = [_opened(as_path(each).expanduser()) for each in paths]
    first = opened[0]
    for other in opened[1:]:
        same = len(first.log_snr) == len(other.log_snr) and torch.equal(first.log_snr, other.log_snr)
        if not same or first.noise_shape != other.noise_shape:
            raise UserError(
                f"{other.parts[0].path} and {first.parts[0].path} are no parts of one recording: levels or shapes differ."
            )
    joined: dict[str, Any] = {"parts": tuple(part for each in opened for part in each.parts)}
    joined["samples"] = tuple(range(sum(part.count for part in joined["parts"])))
    for said in SAID:
        known = all(getattr(each, said) for each in opened)
        joined[said] = tuple(entry for each in opened for entry in getattr(each, said)) if known else ()
    recording = replace(first, name=name or first.name, **joined)
    return recording if space == "latents" else recording.pixels()


def save_recording(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    said: Mapping[str, Sequence[Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write a recording whole or not at all, and read it back once.

    Args:
        path: ends in .safetensors or .npz.
        tensors, said, facts: as `load_recording` describes.

    Raises:
        StoreError: it cannot be written.
        UserError: another suffix, or shapes that do not fit.
    """
    target = as_path(path).expanduser()
    if target.suffix not in FORMATS:
        raise UserError(f"a recording is a file {' or '.join(FORMATS)}; rename {target}.")
    about = {
        **{key: list(values) for key, values in said.items() if values is not None and len(values)},
        "facts": dict(facts),
    }
    with atomic_path(target) as temporary:
        if target.suffix == ".npz":
            arrays: dict[str, Any] = {
                key: (tensor if tensor.dtype == torch.uint8 else tensor.float()).detach().cpu().numpy()
                for key, tensor in tensors.items()
            }
            texts: dict[str, Any] = {key: np.array(values) for key, values in about.items() if key != "facts"}
            np.savez(temporary, **arrays, **texts, facts=json.dumps(about["facts"]))
        else:
            save_tensors(temporary, tensors, about)
        _opened(temporary)


def _opened(path: Path) -> Recording:
    """One file, its header checked."""
    with naming(path):
        return _read(path)


def _read(path: Path) -> Recording:
    if path.suffix == ".npz":
        arrays, about = _npz(path)
        shapes = {key: tuple(tensor.shape) for key, tensor in arrays.items()}
        axes = {key: arrays[key].double() for key in _AXES if key in arrays}
        part = Part(path, shapes, {key: arrays[key] for key in (*BY_STEP, "images") if key in arrays})
        sort = str(arrays["images"].dtype).removeprefix("torch.") if "images" in arrays else ""
    elif path.suffix == ".safetensors":
        check_tensors(path)
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys())
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
            axes = {key: file.get_tensor(key).double() for key in _AXES if key in names}
            about = _json((file.metadata() or {}).get("consistency_lab", "{}"), path)
            sort = file.get_slice("images").get_dtype() if "images" in names else ""
        part = Part(path, shapes)
    else:
        raise UserError(f"{path} is no recording; a recording is a file {' or '.join(FORMATS)}.")
    held = ", ".join(shapes) or "nothing"
    if "latents" not in shapes or len(shapes["latents"]) < 3:
        raise UserError(f"{path} needs latents (step, sample, ...); it holds {held}.")
    steps, count = shapes["latents"][:2]
    if not steps or not count:
        raise UserError(f"{path} holds latents {shapes['latents']}: no step or no sample.")
    if "x0" in shapes and shapes["x0"] != shapes["latents"]:
        raise UserError(f"{path} holds x0 {shapes['x0']} and latents {shapes['latents']}; they need one shape.")
    if "images" in shapes and (len(shapes["images"]) != 4 or shapes["images"][0] != count):
        raise UserError(f"{path} holds images {shapes['images']} where ({count}, C, H, W) was expected.")
    if sort and sort not in ("uint8", "U8") and not sort.lower().startswith(("f", "bf")):
        raise UserError(f"{path} holds images of {sort}; write floats in [-1, 1], or bytes (uint8, 0 to 255).")
    facts = dict(about.get("facts") or {})
    t, log_snr = _levels(axes, facts, steps, path)
    order = _order(log_snr, path)
    said = {key: tuple(about.get(key) or ()) for key in SAID}
    for key, entries in said.items():
        if entries and len(entries) != count:
            raise UserError(f"{path} holds {count} samples and {len(entries)} {key}.")
    if not all(isinstance(label, int) for label in said["labels"]):
        raise UserError(f"{path} holds labels that are no whole numbers.")
    if len(set(said["names"])) < len(said["names"]):
        raise UserError(f"{path} holds two samples of one name; give each its own.")
    with open(path, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    known = {
        "kind": "recording",
        "space": "latents",
        **facts,
        "file": path.name,
        "sha256": digest,
        "levels": len(order),
    }
    return Recording(
        path.stem, (part,), t[order], log_snr[order], tuple(order), tuple(range(count)), facts=known, **said
    )


def _levels(axes: Mapping[str, Tensor], facts: dict[str, Any], steps: int, path: Path) -> tuple[Tensor, Tensor]:
    """``t`` and ``log_snr`` of every step."""
    for key, values in axes.items():
        if values.shape != (steps,):
            raise UserError(f"{path} holds {key} {tuple(values.shape)} for {steps} steps; give one for each.")
        if values.isnan().any() or (key != "log_snr" and not values.isfinite().all()):
            raise UserError(f"{path} holds {key} that are not finite.")
    t = axes.get("t", axes.get("times"))
    if t is not None and not bool(((t >= 0) & (t <= 1)).all()):
        raise UserError(
            f"{path} holds times from {float(t.min()):g} to {float(t.max()):g}; they lie in [0, 1], and 1 is noise."
        )
    if "log_snr" in axes:
        log_snr = axes["log_snr"]
    elif "sigmas" in axes and "alphas" in axes:
        if bool((axes["sigmas"] < 0).any() or (axes["alphas"] < 0).any()):
            raise UserError(f"{path} holds negative alphas or sigmas.")
        log_snr = 2 * (axes["alphas"].log() - axes["sigmas"].log())
    elif "sigmas" in axes:
        raise UserError(
            f"{path} holds sigmas without alphas, which do not say how much of the data is left: add alphas (1 where noise is added to the "
            "data, 1 - sigma for flow matching, sqrt(1 - sigma²) for a process of constant variance)."
        )
    elif t is not None:
        log_snr = _log_snr(t, str(facts.setdefault("schedule", "flow")))
    else:
        raise UserError(f"{path} does not say the noise levels of its steps: add sigmas and alphas, log_snr, or times.")
    if log_snr.isnan().any():
        raise UserError(f"{path} holds a step with alpha = sigma = 0, which is no noise level.")
    return (flow_time(log_snr) if t is None else t), log_snr


def _log_snr(t: Tensor, name: str) -> Tensor:
    """Of times on a schedule; time 0 is data."""
    schedule = SCHEDULES.build(name)
    if name == "flow":  # which reaches pure noise
        return 2 * ((1 - t).log() - t.log())
    within = schedule.log_snr(t.clamp(schedule.t_min, schedule.t_max))
    return torch.where(t == 0, torch.full_like(t, torch.inf), within)


def flow_time(log_snr: Tensor) -> Tensor:
    """The time of a noise level where sigma / (alpha + sigma) is the time, as in flow matching."""
    return torch.sigmoid(-log_snr / 2)


def _order(log_snr: Tensor, path: Path) -> list[int]:
    """The steps by rising log-SNR, of several at one level the last (a solver of two stages corrects the first)."""
    falls = bool((log_snr.diff() <= 0).all()) and len(log_snr) > 1
    order = list(range(len(log_snr)))[:: -1 if falls else 1]
    if bool((log_snr[order].diff() < 0).any()):
        raise UserError(f"the noise levels of {path} rise and fall; give its steps from noise to data.")
    return [
        step
        for step, later in zip(order, [*order[1:], None], strict=True)
        if later is None or log_snr[step] != log_snr[later]
    ]


def _npz(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    check_archive(path)
    if not path.is_file():
        raise StoreError(f"there is no file {path}; give the path of a recording.{nearest_path(path)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
        if not all(isinstance(value, np.ndarray) for value in held.values()):
            raise ValueError("a member that is no array")
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise StoreError(
            f"{path} is truncated, or holds Python objects, which are not read; write it again."
        ) from error
    tensors = {
        key: torch.from_numpy(value.astype(np.float32 if value.dtype == np.float16 else value.dtype))
        for key, value in held.items()
        if value.dtype.kind in "fiu" and key not in SAID
    }
    about: dict[str, Any] = {key: held[key].tolist() for key in SAID if key in held}
    if "facts" in held:
        about["facts"] = _json(str(held["facts"]), path)
    return tensors, about


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        content = parsed(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StoreError(f"what {path} says of its samples is no JSON object; write it again.")
    return content
