TITLE = "initial noise of 10,000 images of 3x32x32"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("once",)
GOALS = {"": 4}
TOLERANCE = 1e-7
NOTE = "The words are Philox's and take a third of the time; the rest is Box and Muller's transform in float64."


def ours(case):
    from consistency_lab.diffusion.noise import SharedNoise

    def work():
        return {"noise": SharedNoise(0).initial(range(10_000), (3, 32, 32))}

    return work
