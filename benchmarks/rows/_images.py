"""What rows are measured on."""

import re


def numbers(case):
    """``"K = 8, 32x32"`` -> [8, 32, 32]."""
    return [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\d|\d", case)]


def alike(case, count=32):
    """Images of K models that are nearly alike, and the pairs of models, of ``"K = 8, 32x32"``."""
    from itertools import combinations

    import torch

    models, height, width = numbers(case)
    generator = torch.Generator().manual_seed(0)
    shared = 0.4 * torch.randn(count, 3, height, width, generator=generator)
    own = [0.1 * torch.randn(shared.shape, generator=generator) for _ in range(models)]
    return [(shared + each).clamp(-1, 1) for each in own], list(combinations(range(models), 2))


def natural(count, side=32, seed=0):
    """``(count, 3, side, side)`` in [-1, 1]: smooth, with some noise, as photographs are."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = 0.5 * torch.randn(count, 3, side // 4, side // 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    return images.add_(0.1 * torch.randn(images.shape, generator=generator)).clamp_(-1, 1)
