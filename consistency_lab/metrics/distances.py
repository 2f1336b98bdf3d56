"""Every distance between images by name: what `consistency_lab.compare` and the command line choose from.

Images are ``(N, C, H, W)`` in [-1, 1] (estimates of x0 may leave it). Distances are float64 ``(N,)``.
"""

from __future__ import annotations

from pathlib import Path

from consistency_lab.choices import Choice, Registry
from consistency_lab.metrics.bands import BandError, ComponentError, principal_components
from consistency_lab.metrics.base import RANGE, Distance, SquaredDistance, check_images, check_range, check_samples
from consistency_lab.metrics.copy_detection import CopyDistance, sscd
from consistency_lab.metrics.perceptual import FeatureDistance, lpips_alex, lpips_squeeze, lpips_vgg
from consistency_lab.metrics.pixels import CosineDistance, MeanSquaredError, PeakSignalToNoise, nearest
from consistency_lab.metrics.structural import MultiScaleStructuralDistance, StructuralDistance

METRICS: Registry[Distance] = Registry(
    "metric",
    {
        "mse": MeanSquaredError,
        "cosine": CosineDistance,
        "psnr": PeakSignalToNoise,
        "ssim": StructuralDistance,
        "ms-ssim": MultiScaleStructuralDistance,
        "lpips-alex": lpips_alex,
        "lpips-vgg": lpips_vgg,
        "lpips-squeeze": lpips_squeeze,
        "sscd": sscd,
        "band": BandError,
    },
)


def metric_asked(metric: str | Choice | Distance) -> str | None:
    """How a metric was asked for, for provenance: its text, with the names of files and not where they lie; None for an object."""
    if isinstance(metric, Distance):
        return None
    choice = Choice.parse(metric)
    options = {key: Path(x).name if isinstance(x, str) and "/" in x else x for key, x in choice.options.items()}
    return str(Choice(choice.name, options))


__all__ = [
    "METRICS",
    "RANGE",
    "BandError",
    "ComponentError",
    "CopyDistance",
    "CosineDistance",
    "Distance",
    "FeatureDistance",
    "MeanSquaredError",
    "MultiScaleStructuralDistance",
    "PeakSignalToNoise",
    "SquaredDistance",
    "StructuralDistance",
    "check_images",
    "check_range",
    "check_samples",
    "metric_asked",
    "nearest",
    "principal_components",
    "sscd",
]
