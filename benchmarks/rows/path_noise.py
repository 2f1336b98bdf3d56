TITLE = "path noise of 8 images of 3x32x32, 50 steps"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("1 model", "8 models")
GOALS = {"1 model": 20, "8 models": 100}
TOLERANCE = 0.06  # five standard errors of the variance of 24,576 normals, of both sides
NOTE = (
    "The path is another one of the same law: what is compared is the variance of its increments. For 8 models it is made once. Costs grow "
    "with the images on both sides: of 32 images the ratio for one model is 22. A step of "
    "32 images takes 2.3 ms, the default U-Net (165 thousand parameters) 73 ms on them."
)


def ours(case):
    from consistency_lab.diffusion.noise import SharedNoise

    models = int(case.split()[0])

    def work():
        noise = SharedNoise(0)
        for _ in range(models):
            steps = [noise.increment(range(8), (3, 32, 32), (k + 1) / 50, k / 50) for k in reversed(range(50))]
        return {"variance": [float(step.double().var()) for step in steps[:3]]}

    return work
