from itertools import pairwise

TITLE = "`compare` of 2 models with their ceiling, 256 samples, 20 steps"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("3x16x16",)
GOALS = {"": 2}
TOLERANCE = 1e-4
NOTE = (
    "A quarter of the samples is walked again at twice the steps: a third of all evaluations, where it was two thirds. What is compared "
    "are the distances of the pair. A solver of second order would have needed two evaluations a step for every sample instead; what the "
    "quarter costs is the width of the ceiling's interval, twice as wide, which the result gives."
)


def ours(case):
    import torch

    import consistency_lab as cl

    def network():
        widths = (3, 48, 48, 3)
        layers = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        return torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1], torch.nn.SiLU(), layers[2])

    class Timed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, t):
            return self.inner(x * (1 + 0.1 * t[:, None, None, None]))

    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = cl.wrap_module(
            Timed(), schedule="linear", predicts="eps", shape=(3, 16, 16), time="unit", name=f"m{seed}"
        )
        models.append(model)

    def work():
        result = cl.compare(models, count=256, metrics=("mse",), sampler="ddim(steps=20)", levels=5)
        return {"distance": result["distance"].values}

    return work
