"""Every distance between images by name: what `consistency_lab.compare` and the command line choose from.

Images are ``(N, C, H, W)`` in [-1, 1] (estimates of x0 may leave it). Distances are float64 ``(N,)``.
"""

from __future__ import annotations

from consistency_lab.choices import Registry
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
    "nearest",
    "principal_components",
    "sscd",
]
