TITLE = "difficulty of 20 noise levels by ten definitions, of a U-Net on 1x8x8"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("width 16",)
GOALS = {"": 2}
TOLERANCE = 1e-3
NOTE = (
    "256 images, gradients of 32, four checkpoints, references fitted to 512 other images. Gradients were about three quarters of it: "
    "those of a level's samples come from one backward pass now. Evaluating the network on the grids, as before, is more than two fifths "
    "of what is left."
)


def ours(case):
    import torch

    from consistency_lab.data.sources import load_images
    from consistency_lab.diffusion.denoiser import NetworkDenoiser
    from consistency_lab.diffusion.model import DiffusionModel
    from consistency_lab.diffusion.schedule import SCHEDULES
    from consistency_lab.networks.registry import build_network
    from consistency_lab.probes.difficulty import probe_difficulty

    images = load_images("digits")

    def model(seed):
        network = build_network(f"unet(width={case.split()[1]})", images.shape, seed=seed).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():  # its last layer starts at 0
            for p in network.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
        return DiffusionModel(f"m{seed}", NetworkDenoiser(network, SCHEDULES.build("linear"), images.shape))

    asked, checkpoints = model(0), [(10**k, model(k)) for k in range(1, 5)]
    held_out, trained_on = images.take(range(512), "held out"), images.take(range(512, 1024), "trained on")

    def work():
        found = probe_difficulty(asked, held_out, training_images=trained_on, snapshots=checkpoints)
        names = [str(name) for name in found["definition"].values]
        curves = found["profile"].transpose("definition", "t").values
        answers = {name: curve for name, curve in zip(names, curves, strict=True) if name != "half-time"}
        return {**answers, "adam": found["adam_second_moment"].values, "scale": found["noise_scale"].values}

    return work
