from _line import IMAGES, LEVELS, metrics, moved, subject, wrapped
from plane import CASES as CASES

TITLE = "the loss on a line of 25 points at 10 noise levels, 16 images of 1x8x8, with its intervals"
PEER = "loss-landscapes 3.0.6"
GOALS = {"": 4}
TOLERANCE = 1e-3
PACKAGES = ("loss-landscapes",)
NOTE = (
    "The losses, and the intervals of the means, as for the plane; gradients along the line and shorter pieces of it, which "
    "`line_landscape` has too, have no counterpart. Each side makes four lines. What bounds the ratios is said at the plane: the same "
    "network on the same images."
)
POINTS, REPEATS = 25, 4  # one line of an MLP is too short to be timed


def ours(case):
    import numpy as np

    from consistency_lab.intervals import mean_interval
    from consistency_lab.probes.directions import random_axes
    from consistency_lab.probes.weight_space import losses_along

    given = subject(case)

    def work():
        for _ in range(REPEATS):
            (direction,) = random_axes(given.module, 0).axes
            line = np.linspace(-1, 1, POINTS).tolist()
            losses = losses_along(given.module, given.loss, given.batch, direction, line)
            found = losses.numpy().reshape(POINTS, LEVELS, IMAGES)
            mean_interval(found.mean(1))
            loss = mean_interval(found)
        return {"loss": loss.estimate}

    return work


def theirs(case):
    from loss_landscapes import linear_interpolation

    from consistency_lab.probes.directions import random_axes

    given = subject(case)
    (direction,), step = random_axes(given.module, 0).axes, 2 / (POINTS - 1)
    metric, models = metrics(given, case), [moved(given, [(at, direction)]) for at in (-1 - step, 1.0)]

    def work():
        for _ in range(REPEATS):
            loss = linear_interpolation(*map(wrapped, models), metric, POINTS, deepcopy_model=True)
        return {"loss": loss}

    return work
