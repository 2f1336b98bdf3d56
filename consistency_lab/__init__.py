"""How alike are the images that different generative models make from the same noise, why, and what does that buy in training time?

    import consistency_lab as cl

    images = cl.load_images("digits")
    a, b = cl.train(images, network="unet", seed=0), cl.train(images, network="unet", seed=1)
    likeness = cl.compare([a, b], cl.SharedNoise(0), count=256, images=images)
    cl.report([likeness, cl.probe_difficulty(a, images), cl.probe_landscape(a, images)], "report.html")

Names are imported when they are first used: ``import consistency_lab`` alone loads neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Choice": "choices",
    "CopyDistance": "metrics.copy_detection",
    "Denoiser": "diffusion.denoiser",
    "DiffusionModel": "diffusion.model",
    "DinoFeatures": "metrics.dino",
    "Distance": "metrics.base",
    "Estimate": "diffusion.sampling",
    "GANSettings": "contrast.settings",
    "GaussianDenoiser": "diffusion.references",
    "ImageSet": "data.imageset",
    "InceptionFeatures": "metrics.inception",
    "KINDS": "kinds.registry",
    "Kind": "kinds.base",
    "METRICS": "metrics.distances",
    "MomentumSchedule": "training.momentum",
    "NETWORKS": "networks.registry",
    "NetworkDenoiser": "diffusion.denoiser",
    "NextLevel": "diffusion.sampling",
    "OptimalDenoiser": "diffusion.optimal",
    "Prediction": "diffusion.denoiser",
    "Recorder": "pipelines.recorder",
    "Recipe": "recipe",
    "SAMPLERS": "diffusion.sampling",
    "SCHEDULES": "diffusion.schedule",
    "Sampler": "diffusion.sampling",
    "SharedNoise": "diffusion.noise",
    "Store": "store.runs",
    "TIMESTEPS": "training.timesteps",
    "TrainingSettings": "training.settings",
    "UserError": "errors",
    "VAESettings": "contrast.settings",
    "audit_timesteps": "training.timesteps",
    "check_wrapping": "interop.wrapping",
    "compare": "similarity.compare",
    "compare_frozen": "similarity.frozen",
    "compare_representations": "similarity.representations",
    "compare_snapshots": "similarity.snapshots",
    "curvature_spectrum": "probes.curvature",
    "denoising_loss": "diffusion.loss",
    "diffusion_subject": "probes.subject",
    "difficulty_correlations": "probes.profiles",
    "difficulty_table": "probes.profiles",
    "explore": "jupyter.explore",
    "export_diffusers": "interop.export",
    "gate": "gates.gate",
    "layer_names": "similarity.representations",
    "line_landscape": "probes.landscape",
    "load": "loading",
    "load_folder_model": "pipelines.folders",
    "load_images": "data.sources",
    "load_model": "training.train",
    "load_recording": "pipelines.recording_files",
    "load_result": "store.results",
    "load_snapshots": "training.train",
    "load_state": "interop.states",
    "measure_quality": "similarity.quality",
    "measure_reproducibility": "similarity.reproducibility",
    "plane_landscape": "probes.plane",
    "predict_consistency": "similarity.prediction",
    "contrast_subject": "studies.contrast_subject",
    "probe_curvature": "probes.curvature",
    "probe_difficulty": "probes.difficulty",
    "probe_landscape": "probes.landscape",
    "probe_plane": "probes.plane",
    "probe_connectivity": "studies.connectivity",
    "probe_structure": "probes.structure",
    "report": "reports.html",
    "sample_path": "diffusion.sampling",
    "save_result": "store.results",
    "set_classifier": "similarity.quality",
    "show": "jupyter.card",
    "sscd": "metrics.copy_detection",
    "train": "training.train",
    "train_gan": "contrast.gan",
    "train_vae": "contrast.vae",
    "wrap_generator": "interop.generator",
    "wrap_module": "interop.module",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'consistency_lab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"consistency_lab.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext consistency_lab``: results show themselves in this notebook as `show` does."""
    from consistency_lab.jupyter.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """``%unload_ext consistency_lab``: results are shown by xarray again."""
    from consistency_lab.jupyter.extension import unload

    unload(ipython)


if TYPE_CHECKING:
    from consistency_lab.choices import Choice
    from consistency_lab.contrast.gan import train_gan
    from consistency_lab.contrast.settings import GANSettings, VAESettings
    from consistency_lab.contrast.vae import train_vae
    from consistency_lab.data.imageset import ImageSet
    from consistency_lab.data.sources import load_images
    from consistency_lab.diffusion.denoiser import Denoiser, NetworkDenoiser
    from consistency_lab.diffusion.loss import denoising_loss
    from consistency_lab.diffusion.model import DiffusionModel
    from consistency_lab.diffusion.noise import SharedNoise
    from consistency_lab.diffusion.optimal import OptimalDenoiser
    from consistency_lab.diffusion.prediction import Prediction
    from consistency_lab.diffusion.references import GaussianDenoiser
    from consistency_lab.diffusion.sampling import SAMPLERS, Estimate, NextLevel, Sampler, sample_path
    from consistency_lab.diffusion.schedule import SCHEDULES
    from consistency_lab.errors import UserError
    from consistency_lab.gates.gate import gate
    from consistency_lab.interop.export import export_diffusers
    from consistency_lab.interop.generator import wrap_generator
    from consistency_lab.interop.module import wrap_module
    from consistency_lab.interop.states import load_state
    from consistency_lab.interop.wrapping import check_wrapping
    from consistency_lab.jupyter.card import show
    from consistency_lab.jupyter.explore import explore
    from consistency_lab.kinds.base import Kind
    from consistency_lab.kinds.registry import KINDS
    from consistency_lab.loading import load
    from consistency_lab.metrics.base import Distance
    from consistency_lab.metrics.copy_detection import CopyDistance, sscd
    from consistency_lab.metrics.dino import DinoFeatures
    from consistency_lab.metrics.distances import METRICS
    from consistency_lab.metrics.inception import InceptionFeatures
    from consistency_lab.networks.registry import NETWORKS
    from consistency_lab.pipelines.folders import load_folder_model
    from consistency_lab.pipelines.recorder import Recorder
    from consistency_lab.pipelines.recording_files import load_recording
    from consistency_lab.probes.curvature import curvature_spectrum, probe_curvature
    from consistency_lab.probes.difficulty import probe_difficulty
    from consistency_lab.probes.landscape import line_landscape, probe_landscape
    from consistency_lab.probes.plane import plane_landscape, probe_plane
    from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table
    from consistency_lab.probes.structure import probe_structure
    from consistency_lab.probes.subject import diffusion_subject
    from consistency_lab.recipe import Recipe
    from consistency_lab.reports.html import report
    from consistency_lab.similarity.compare import compare
    from consistency_lab.similarity.frozen import compare_frozen
    from consistency_lab.similarity.prediction import predict_consistency
    from consistency_lab.similarity.quality import measure_quality, set_classifier
    from consistency_lab.similarity.representations import compare_representations, layer_names
    from consistency_lab.similarity.reproducibility import measure_reproducibility
    from consistency_lab.similarity.snapshots import compare_snapshots
    from consistency_lab.store.results import load_result, save_result
    from consistency_lab.store.runs import Store
    from consistency_lab.studies.connectivity import probe_connectivity
    from consistency_lab.studies.contrast_subject import contrast_subject
    from consistency_lab.training.momentum import MomentumSchedule
    from consistency_lab.training.settings import TrainingSettings
    from consistency_lab.training.timesteps import TIMESTEPS, audit_timesteps
    from consistency_lab.training.train import load_model, load_snapshots, train
