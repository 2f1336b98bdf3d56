from _images import numbers

TITLE = "`compare` of 12 models, 256 samples, default metrics, after the walks"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("14 levels of 1x8x8", "3 levels of 3x32x32")
GOALS = {"": 5}
TOLERANCE = 1e-5
NOTE = "Pairs, nulls, scores and their intervals, of estimates that are there already."


def ours(case):
    import numpy as np
    import torch
    import xarray as xr

    from consistency_lab.metrics.distances import METRICS
    from consistency_lab.similarity import pairwise, trajectories

    levels, *shape = numbers(case)
    generator = torch.Generator().manual_seed(0)
    shared = 0.4 * torch.randn(levels, 256, *shape, generator=generator)
    own = [(shared + 0.1 * torch.randn(shared.shape, generator=generator)).clamp(-1, 1) for _ in range(12)]
    walked = [trajectories.Trajectories(f"m{k}", each) for k, each in enumerate(own)]
    pairs = [(a, b) for a in range(12) for b in range(a + 1, 12)]
    level = torch.zeros(len(pairs), levels, dtype=torch.float64)
    kind = getattr(trajectories, "ModelWalks", None) or trajectories.Walks
    walks = kind(walked, list(range(12)), [torch.empty(0)] * 12, pairs, level, level)
    metrics = [METRICS.build(name) for name in ("mse", "psnr", "cosine")]

    def work():
        result = xr.Dataset(coords=pairwise.coordinates([w.name for w in walked], metrics))
        result.coords["sample"] = np.arange(256, dtype=np.int32)
        if hasattr(pairwise, "pairs_measured"):
            pairwise.add_pairs(result, 12, level.numpy(), pairwise.pairs_measured(walks, metrics), metrics)
        else:
            pairwise.add_pairs(result, walks, metrics)
        return {name: result[name].values[..., :2] for name in ("distance", "null", "score")}

    return work
