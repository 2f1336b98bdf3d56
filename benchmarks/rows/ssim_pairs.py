from _images import alike

TITLE = "SSIM of all pairs, ours with its null"
PEER = "torchmetrics, pair by pair, without a null"
CASES = ("K = 8, 32x32", "K = 16, 32x32", "K = 8, 64x64", "K = 16, 64x64")
GOALS = {"": 4}
TOLERANCE = 5e-2  # torchmetrics counts the mirrored rim too
PACKAGES = ("torchmetrics",)
NOTE = "32 images a model; ours in float64, torchmetrics in float32. Ours is four evaluations more for each pair: the null."


def ours(case):
    from consistency_lab.metrics.distances import METRICS

    images, pairs = alike(case)
    distance = METRICS.build("ssim")

    def work():
        return {"distance": distance.pairwise([distance.embed(each) for each in images], pairs)[0].mean(1)}

    return work


def theirs(case):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    images, pairs = alike(case)
    images = [1 + each for each in images]

    def work():
        values = [similarity(images[a], images[b], data_range=2.0, reduction="none") for a, b in pairs]
        return {"distance": 1 - torch.stack(values).double().mean(1)}

    return work
