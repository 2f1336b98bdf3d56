from _line import metrics, moved, subject, wrapped

TITLE = (
    "the loss on a plane of 15 x 15 points (U-Net: 7 x 7) at 10 noise levels, 16 images of 1x8x8, with its intervals"
)
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
    "Directions are given to loss-landscapes and drawn in our time, which also has the checks, intervals, numbers and provenance of the "
    "plane. Every other of its columns is shifted by a step; the others are compared. Its Loss takes one batch, so that ten levels are ten "
    "calls of the network. A metric of one's own that answers for all levels at once is not what it offers, but is a few lines: it calls "
    "the denoiser once, as we do, with noisy images that were made beforehand, and the schedule's numbers are made in every call of the "
    "denoiser. Then both sides run the same network on the same 160 images at every point, and 4 "
    "is out of reach: for the MLP 126 of our 205 ms are the network, 11 move the weights, and about 35 are there once, whatever the "
    "points (provenance, dataset, intervals), so that without any work of ours the ratio would be below 2. In the same process the MLP "
    "runs forward at 43 and the U-Net at 24 to 27 GFLOP/s where a product of 1024 x 1024 matrices reaches 181 to 188: its 8 channels fill "
    "no kernel, half of its time is convolutions and a quarter group norms. For the U-Net ten calls on 16 images cost 33 ms and one on "
    "160 costs 12: that is the ratio that the network allows beside its Loss."
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
