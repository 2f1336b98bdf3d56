from _images import natural

TITLE = "nearest of 5,000 training images, 64 samples of 3x32x32"
PEER = "brute force in torch: broadcast"
CASES = ("once",)
GOALS = {"": 10}
MEMORY_GOALS = {"": 50}
TOLERANCE = 1e-6
NOTE = (
    "The brute force broadcasts 16 samples at a time, 1 GB; ours is one product of matrices in float64, and the winner's difference "
    "itself."
)


def ours(case):
    from consistency_lab.metrics.pixels import nearest

    images, samples = _asked()

    def work():
        distance, place = nearest(samples, images)
        return {"distance": distance, "place": place}

    return work


def theirs(case):
    images, samples = _asked()

    def work():
        import torch

        parts = [(part[:, None] - images).pow_(2).mean((2, 3, 4)).min(1) for part in samples.split(16)]
        return {"distance": torch.cat([each.values for each in parts]), "place": torch.cat([x.indices for x in parts])}

    return work


def _asked():
    import torch

    images = natural(5_000)
    return images, (images[:64] + 0.3 * torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
