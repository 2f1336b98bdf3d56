"""What the rows of training share: a set, settings, and batches on whose losses both sides are compared before they are timed."""

from types import SimpleNamespace

STEPS = 10  # of training, that are timed together
CHECKED = 8  # steps whose losses are compared


def images():
    import torch

    from consistency_lab.data.imageset import ImageSet

    noise = torch.rand(1280, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return ImageSet.from_array(noise * 2 - 1, name="noise", channels="first", value_range=(-1, 1))


def settings(name):
    from consistency_lab.training.settings import TrainingSettings

    return TrainingSettings.of(network=name, steps=100_000, lr_warmup=0)


def denoiser(name):
    import torch

    from consistency_lab.training.train import build_denoiser, training_spec

    return build_denoiser(training_spec(images(), settings(name), torch.device("cpu"))).train()


def checked_batches(name):
    """Images, timesteps 0 to 999 and noise of the first steps."""
    import torch

    drawn, pixels, batch = torch.Generator().manual_seed(1), images().all(), settings(name).batch
    return [
        (
            pixels[torch.randperm(len(pixels), generator=drawn)[:batch]],
            torch.randint(0, 1000, (batch,), generator=drawn),
            torch.randn(batch, *pixels.shape[1:], generator=drawn),
        )
        for _ in range(CHECKED)
    ]


def ours_step(name):
    """``loop()``: our training loop; ``trained()``: the losses that it takes on the checked batches."""
    import torch

    from consistency_lab.training.loop import Batch
    from consistency_lab.training.train import DIFFUSION_KIND

    def loop():
        return DIFFUSION_KIND.loop(denoiser(name), images(), settings(name), torch.device("cpu"))

    def trained():
        made, given = loop(), checked_batches(name)
        source = made.source

        def batch(step):
            x0, index, eps = given[step]
            return Batch((x0, (index.double() + 1) / 1000, eps), torch.ones(len(x0)))

        source.batch = batch
        steps = iter(made)
        return {"loss": torch.stack([next(steps).loss for _ in given])}

    return SimpleNamespace(loop=loop, trained=trained)
