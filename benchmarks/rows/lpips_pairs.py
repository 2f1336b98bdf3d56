from _images import alike

TITLE = "LPIPS (squeeze) of all pairs, ours with its null"
PEER = "lpips 0.1.4, pair by pair, without a null"
CASES = ("K = 8, 32x32", "K = 16, 32x32", "K = 8, 64x64", "K = 16, 64x64")
GOALS = {"K = 8, 32x32": 4, "K = 8, 64x64": 4, "K = 16, 32x32": 8, "K = 16, 64x64": 8}
TOLERANCE = 1e-5
PACKAGES = ("lpips", "torchvision")
NOTE = "The trunk has random weights on both sides: time does not depend on them. 32 images a model."


def ours(case):
    from consistency_lab.metrics.perceptual import FeatureDistance, random_network

    images, pairs = alike(case)
    distance = FeatureDistance(random_network("squeeze"), "squeeze", "random features", "random")

    def work():
        found, _ = distance.pairwise([distance.embed(each) for each in images], pairs)
        return {"distance": found}

    return work


def theirs(case):
    import torch

    from consistency_lab.metrics.perceptual import random_network

    images, pairs = alike(case)
    network = random_network("squeeze").eval()

    def work():
        with torch.no_grad():
            return {"distance": torch.stack([network(images[a], images[b]).flatten() for a, b in pairs])}

    return work
