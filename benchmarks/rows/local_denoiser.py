from _images import natural

TITLE = "local denoiser, window 5, 600 images of 3x32x32"
PEER = "brute force in torch: all windows, broadcast"
CASES = ("sigma .1", "sigma 1")
GOALS = {"": 10}
MEMORY_GOALS = {"": 50}
TOLERANCE = 1e-4
NOTE = "2 states. The brute force unfolds every window of every image in float32 and broadcasts the differences, one state at a time."


def ours(case):
    import torch

    from consistency_lab.diffusion.local import LocalDenoiser
    from consistency_lab.diffusion.schedule import SCHEDULES

    images, states, sigma = _asked(case)
    denoiser = LocalDenoiser(images, SCHEDULES.build("edm"), window=5)
    t = float(denoiser.schedule.time_from_log_snr(-2 * torch.tensor(sigma).double().log()))

    def work():
        return {"x0": denoiser(states, t).x0}

    return work


def theirs(case):
    import torch

    images, states, sigma = _asked(case)

    def windows(x):
        return torch.nn.functional.unfold(x, 5, padding=2).unflatten(1, (3, 25))

    def work():
        found, of_images = [], windows(images)
        for state in states:
            distance = (windows(state[None]) - of_images).pow(2).sum((1, 2))  # (images, pixels)
            weights = torch.softmax(-distance / (2 * sigma**2), 0)
            found.append((weights[:, None] * images.flatten(2)).sum(0).view(state.shape))
        return {"x0": torch.stack(found)}

    return work


def _asked(case):
    import torch

    images, sigma = natural(600), float(case.split()[1])
    return images, images[:2] + sigma * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), sigma
