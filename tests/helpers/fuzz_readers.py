"""Every file that the package reads, small and real, with what reads it: for `fuzz`."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults import Subject, subjects
from PIL import Image

import consistency_lab as cl
from consistency_lab.contrast.settings import GANSettings
from consistency_lab.data.formats import read_cifar_batch, read_idx
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import DamagedError, UserError
from consistency_lab.interop.diffusers import import_diffusers, load_diffusers
from consistency_lab.interop.export import export_diffusers
from consistency_lab.interop.files import refuse_weights
from consistency_lab.interop.module import foreign_model
from consistency_lab.interop.states import load_state
from consistency_lab.interop.torchscript import load_torchscript
from consistency_lab.networks.registry import build_network
from consistency_lab.pipelines.folders import load_folder_model
from consistency_lab.pipelines.recording_files import load_recording, save_recording
from consistency_lab.store.verify import verify
from consistency_lab.training.settings import TrainingSettings

PICTURES = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm")


@dataclass(frozen=True)
class Reader(Subject):
    """A file and what reads it.

    Attributes:
        summed: whether it carries a checksum; without one, what was changed is read as it is now.
        named: by which words a message may name the file: those of it and of its folder by default.
        program: it is code that runs; changed, and packed again so that all sums of the packing fit, it is another program.
    """

    summed: bool = False
    named: tuple[str, ...] = ()
    program: bool = False


def readers(root: Path) -> dict[str, Reader]:
    """All of them, by kind of file, in a folder of their own."""
    made = {name: Reader(**vars(each), summed=True) for name, each in subjects(root / "store").items()}
    # A run's name is not in its hash: of a spec of an earlier version, without a checksum, it may be any.
    made["spec.json"] = replace(made["spec.json"], named=("unknown run 'mlp-s0'",))
    for name in ("weights", "checkpoint", "log", "spec.json", "done.json", "result in a store", "rows", "recipe"):
        made[f"{name}, verified"] = replace(_of(made[name].path, _verified), summed=True)
    rng = np.random.default_rng(0)
    for kind in (_arrays, _pictures, _published, _weights, _recordings, _diffusers, _texts):
        folder = root / kind.__name__.strip("_")
        folder.mkdir()
        made |= kind(folder, rng)
    return made


def _verified(path: Path) -> str:
    """What `verify` says of a file: nothing of one that is sound or none of ours, else its sentence."""
    for finding in verify([path])[1]:
        if finding.wrong:
            raise DamagedError(f"{finding.path} {finding.what}")
    return "sound"


def _arrays(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    images = rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    labels = np.arange(6) % 3
    np.savez(folder / "plain.npz", images=images, labels=labels)
    np.savez_compressed(folder / "packed.npz", images=images, labels=labels)
    np.save(folder / "array.npy", images)
    np.save(folder / "floats.npy", (images / 127.5 - 1).astype(np.float32))
    return {
        "images .npz": _of(folder / "plain.npz", _images),
        "images .npz, packed": _of(folder / "packed.npz", _images),
        "images .npy": _of(folder / "array.npy", _images),
        "model of .npz": _of(folder / "packed.npz", _folder_model),
        "model of .npy": _of(folder / "floats.npy", _folder_model),
    }


def _pictures(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    made = {}
    for kind in PICTURES:
        place = folder / kind
        place.mkdir()
        for number in range(2):
            picture = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
            picture.save(place / f"{number}.{kind}")
        made[f"picture .{kind}"] = _of(place / f"1.{kind}", lambda path: _images(path.parent))
    with zipfile.ZipFile(folder / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "png").iterdir()):
            archive.write(path, path.name)
    mixed = folder / "mixed"
    mixed.mkdir()
    Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(mixed / "a.png")
    np.save(mixed / "b.npy", rng.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8))
    made["zip of pictures"] = _of(folder / "some.zip", _images)
    made["array in a folder"] = _of(mixed / "b.npy", lambda path: _folder_model(path.parent))
    made["picture in a folder"] = _of(mixed / "a.png", lambda path: _folder_model(path.parent))
    return made


def _published(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    array = rng.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    (folder / "idx").write_bytes(content)
    (folder / "idx.gz").write_bytes(gzip.compress(content, mtime=0))
    batch = {"data": array.reshape(3, -1), "labels": [0, 1, 2], "filenames": ["a", "b", "c"]}
    (folder / "batch").write_bytes(pickle.dumps(batch, protocol=3))

    def cifar(path: Path) -> Any:
        """As if the damaged file were the published one: what lies behind the comparison of checksums."""
        content = path.read_bytes()
        return read_cifar_batch(content, f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}", path.name)

    return {
        "IDX": _of(folder / "idx", read_idx),
        "IDX, gzipped": _of(folder / "idx.gz", read_idx),
        "batch of CIFAR": _of(folder / "batch", cifar),
    }


def _weights(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    from safetensors.torch import save_file

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 3, padding=1))
    state = {f"module.{name}": tensor.detach().clone() for name, tensor in net.state_dict().items()}
    torch.save({"model": state, "ema": {"shadow_params": list(net.parameters())}, "step": 3}, folder / "net.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "net.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export is to be used instead
        torch.jit.script(_Scripted()).save(str(folder / "script.pt"))
    trust = {"trust": True} if "trust" in inspect.signature(load_torchscript).parameters else {}
    options: Any = {
        "schedule": "linear",
        "predicts": "eps",
        "shape": (1, 4, 4),
        "time": "unit",
        "device": "cpu",
    } | trust

    def told(path: Path) -> str:
        try:
            refuse_weights(path)
        except UserError as error:
            if path.name not in str(error):
                raise
            return str(error)

    return {
        "state dict": _of(folder / "net.pt", load_state),
        "state dict, old format": _of(folder / "old.pth", load_state),
        "state dict, safetensors": _of(folder / "net.safetensors", load_state),
        "weights that are named": _of(folder / "net.pt", told),
        "TorchScript": replace(
            _of(folder / "script.pt", lambda path: load_torchscript(path, **options).denoiser.state_dict()),
            program=True,
        ),
    }


class _Scripted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + t[:, None, None, None]


def _recordings(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    sigmas = torch.linspace(0.9, 0.1, 3)
    tensors = {
        "latents": torch.from_numpy(rng.normal(size=(3, 2, 1, 4, 4))).float(),
        "images": torch.from_numpy(rng.uniform(-1, 1, (2, 1, 4, 4))).float(),
        "sigmas": sigmas,
        "alphas": 1 - sigmas,
    }
    said = {"names": ["a", "b"], "prompts": ["one", "two"], "labels": [0, 1]}
    for suffix in ("npz", "safetensors"):
        save_recording(folder / f"engine.{suffix}", tensors, said, {"engine": "mine", "schedule": "flow"})

    def read(path: Path) -> Any:
        found = load_recording(path)
        shown = [part.read("latents", step, range(part.count)) for part in found.parts for step in found.steps]
        return shown, found.t, found.log_snr, found.names, found.prompts, found.labels

    return {
        "recording .npz": _of(folder / "engine.npz", read),
        "recording .safetensors": _of(folder / "engine.safetensors", read, summed=True),
    }


def _diffusers(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    shape = (1, 8, 8)
    network = build_network("unet(width=8, multipliers=(1, 2), blocks=1, groups=4)", shape, 0)
    denoiser = NetworkDenoiser(network, SCHEDULES.build("linear"), shape, "eps")
    export_diffusers(foreign_model(denoiser, network, "tiny", {}), folder / "net")
    config = next(iter(sorted((folder / "net").rglob("config.json"))))
    weights = next(iter((folder / "net").rglob("*.safetensors")))
    scheduler = next(iter((folder / "net").rglob("scheduler_config.json")))
    named = (str(folder / "net"),)

    def ours(_: Path) -> Any:
        return import_diffusers(folder / "net", device="cpu").denoiser.state_dict()

    def theirs(_: Path) -> Any:
        return load_diffusers(folder / "net", device="cpu").denoiser.state_dict()

    index, pipeline = folder / "pipeline" / "model_index.json", folder / "pipeline"
    shutil.copytree(config.parent, pipeline / "unet")
    (pipeline / "scheduler").mkdir()
    shutil.copy(scheduler, pipeline / "scheduler")
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    index.write_text(json.dumps({"_class_name": "DDPMPipeline", **parts}))
    made = {
        "diffusers config.json": _of(config, ours, named=named),
        "diffusers config.json, their network": _of(config, theirs, named=named),
        "diffusers scheduler_config.json": _of(scheduler, ours, named=named),
        "diffusers weights": _of(weights, ours, named=named, summed=True),
        "diffusers model_index.json": _of(
            index, lambda _: import_diffusers(pipeline, device="cpu").denoiser.state_dict(), named=(str(pipeline),)
        ),
    }
    return made


def _texts(folder: Path, rng: np.random.Generator) -> dict[str, Reader]:
    settings = TrainingSettings.of(
        network="unet(width=8)", timesteps={"name": "clts", "center": 0.3, "width": 0.2}, seed=3
    )
    (folder / "settings.json").write_text(json.dumps(settings.texts, indent=2))
    (folder / "gan.json").write_text(json.dumps(GANSettings.of(seed=3).texts))
    return {
        "settings": _of(folder / "settings.json", lambda path: TrainingSettings.read(path).spec()),
        "settings of a GAN": _of(folder / "gan.json", lambda path: GANSettings.read(path).spec()),
    }


def _of(path: Path, read: Callable[[Path], Any], summed: bool = False, named: tuple[str, ...] = ()) -> Reader:
    return Reader(path, lambda: read(path), summed=summed, named=named)


def _images(path: Path) -> Any:
    images = cl.load_images(path, channels="last") if path.suffix in (".npz", ".npy") else cl.load_images(path)
    return images.pixels, images.labels, images.class_names


def _folder_model(path: Path) -> Any:
    model = load_folder_model(path)
    return model.names, model.generate(cl.SharedNoise(0), range(len(model.names)))
