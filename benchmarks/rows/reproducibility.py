TITLE = "copies among 50,000 training images, 32 samples, 512 features"
PEER = "brute force in numpy: broadcast"
CASES = ("once",)
GOALS = {"": 10}
MEMORY_GOALS = {"": 50}
TOLERANCE = 1e-6
NOTE = "What RP and GL take: the most similar training image of each sample. The brute force broadcasts 4 samples at a time, in float64."


def ours(case):
    from consistency_lab.metrics.copy_detection import most_similar

    training, samples = _features()

    def work():
        cosine, place = most_similar(samples, training)
        return {"cosine": cosine, "place": place}

    return work


def theirs(case):
    import numpy as np

    training, samples = (each.numpy() for each in _features())

    def work():
        parts = [1 - ((part[:, None] - training) ** 2).sum(2) for part in np.split(samples, 8)]
        cosines = np.concatenate(parts)
        return {"cosine": cosines.max(1), "place": cosines.argmax(1)}

    return work


def _features():
    import torch

    from consistency_lab.metrics.pixels import half_unit

    generator = torch.Generator().manual_seed(0)
    training = torch.randn(50_000, 512, generator=generator, dtype=torch.float64)
    samples = training[:32] + 0.8 * torch.randn(32, 512, generator=generator, dtype=torch.float64)
    return half_unit(training), half_unit(samples)
