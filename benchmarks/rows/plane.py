from _line import metrics, moved, subject, wrapped

TITLE = "the loss on a plane of 15 x 15 points (U-Net: 7 x 7) at 10 noise levels, 16 images of 1x8x8, with its intervals"
PEER = "loss-landscapes 3.0.6"
CASES = (
    "mlp(width=64), its Loss for each level",
    "mlp(width=64), a metric of all levels",
    "unet(width=8), its Loss for each level",
)
GOALS = {"": 4}
TOLERANCE = 1e-3
PACKAGES = ("loss-landscapes",)
NOTE = (
    "Directions are given to loss-landscapes and drawn in our time, which also has the checks, intervals and numbers of the plane. Every "
    "other of its columns is shifted by a step; the others are compared. With a metric of one's own that answers for all levels at once "
    "both sides evaluate the same network on the same batch, and 4 is out of reach: the noisy images and the schedule's numbers, which "
    "that metric has beforehand and which we make at every point, are a quarter of our time for the MLP. A U-Net of width 16 "
    "on 3x16x16 runs forward at 58 of the 155 GFLOP/s of a matrix product; half of its time is convolutions."
)


def points(case):
    return 7 if case.startswith("unet") else 15


def ours(case):
    from consistency_lab.probes.plane import plane_landscape

    given = subject(case)

    def work():
        found = plane_landscape(given, points=points(case))
        return {"loss": found["loss_by_t"].transpose("x", "y", "t").values[::2]}

    return work


def theirs(case):
    import numpy as np
    from loss_landscapes import planar_interpolation

    from consistency_lab.probes.directions import random_axes

    given = subject(case)
    (x, y), count = random_axes(given.module, 0, 2).axes, points(case)
    step = 1 / (count // 2)
    metric = metrics(given, case)
    # Its columns begin a step after the start, and its ends are `count` steps away.
    models = [
        moved(given, [(-1, x), (-1 - step, y)]),
        moved(given, [(-1 + count * step, x), (-1 - step, y)]),
        moved(given, [(-1, x), (-1 - step + count * step, y)]),
    ]

    def work():
        found = planar_interpolation(*map(wrapped, models), metric, count, deepcopy_model=True)
        return {"loss": np.asarray(found)[::2]}

    return work
