import math

import pytest
import torch
from torch import nn

from consistency_lab.contrast.gan import train_gan
from consistency_lab.contrast.losses import discriminator_loss, generator_loss, probe_parts, vae_loss
from consistency_lab.contrast.networks import VAE, ConvDecoder, ConvEncoder
from consistency_lab.contrast.vae import train_vae
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.probes.directions import random_axes
from consistency_lab.probes.frozen import FrozenBatch, check_deterministic
from consistency_lab.probes.landscape import losses_along

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(60), "some digits")


@pytest.fixture(scope="module")
def models(images):
    tiny = {"steps": 5, "batch": 16, "device": "cpu"}
    return {
        "gan": train_gan(images, **tiny, generator="latent(latent=5, width=4)", discriminator="conv(width=4)"),
        "vae": train_vae(images, **tiny, autoencoder="conv(latent=5, width=4)"),
    }


class Sum(nn.Module):
    """A discriminator with known scores and slopes: the scaled sum of all pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, images):
        return self.scale * images.flatten(1).sum(1, keepdim=True)


def test_the_networks_losses_equal_their_formulas():
    x0, z = torch.full((2, *SHAPE), 0.25), torch.full((2, *SHAPE), -0.125)  # scores 8 and -4
    plain = discriminator_loss(Sum(), x0, z, opponent=nn.Identity())
    assert plain.tolist() == pytest.approx([math.log1p(math.exp(-12))] * 2)
    assert generator_loss(nn.Identity(), x0, z, opponent=Sum()).tolist() == pytest.approx(
        [math.log1p(math.exp(12))] * 2
    )
    # Every pixel's slope is 0.5, at real images and at fakes: the squared norm is twice 64 / 4.
    punished = discriminator_loss(Sum(), x0, z, opponent=nn.Identity(), penalty=0.3)
    assert (punished - plain).tolist() == pytest.approx([0.15 * 32] * 2, rel=1e-5)


def test_the_penalty_has_a_gradient():
    part = Sum()
    loss = discriminator_loss(part, torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE), opponent=nn.Identity(), penalty=1.0)
    loss.mean().backward()  # at zero images only the penalties depend on the scale: 0.5 * 2 * 64 * scale^2
    assert part.scale.grad.item() == pytest.approx(64.0)


def test_the_opponent_gets_no_gradient_from_the_discriminator():
    generator = ConvDecoder(SHAPE, latent=3, width=4)
    discriminator_loss(
        ConvEncoder(SHAPE, width=4), torch.zeros(2, *SHAPE), torch.zeros(2, 3), opponent=generator
    ).sum().backward()
    assert all(p.grad is None for p in generator.parameters())


def test_the_divergence_equals_its_formula():
    vae = VAE(SHAPE, latent=3, width=4)
    x0, noise = torch.rand(4, *SHAPE) * 2 - 1, torch.randn(4, 3)
    with torch.no_grad():
        mean, log_variance = vae.encode(x0)
        posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
        slope = (vae_loss(vae, x0, noise, beta=3.0) - vae_loss(vae, x0, noise, beta=1.0)) / 2
        error = vae_loss(vae, x0, noise, beta=0.0)
        again = (vae.generate(posterior.mean + posterior.stddev * noise) - x0).square().flatten(1).mean(1)
    assert torch.allclose(slope, divergence / 64, atol=1e-6)
    assert torch.allclose(error, again, atol=1e-6)


@pytest.mark.parametrize(("kind", "part"), [("gan", "generator"), ("gan", "discriminator"), ("vae", "autoencoder")])
def test_every_part_can_be_probed(models, images, kind, part):
    parts = probe_parts(models[kind], images, 12, part=part)
    batch = FrozenBatch(parts.tensors, chunk=5)
    check_deterministic(parts.module, parts.loss, batch)
    direction = random_axes(parts.module, 0).axes[0]
    rows = losses_along(parts.module, parts.loss, batch, direction, [-1.0, 0.0, 1.0])
    assert rows.shape == (3, 12)
    with torch.no_grad():
        assert torch.equal(rows[1], batch.losses(parts.module, parts.loss).double())
    assert not torch.equal(rows[0], rows[1])
    gradients = torch.autograd.grad(batch.losses(parts.module, parts.loss).mean(), list(parts.module.parameters()))
    assert any(g.abs().max() > 0 for g in gradients)


def test_a_loss_is_of_its_sample_alone(models, images):
    for kind, part in (("gan", "generator"), ("gan", "discriminator"), ("vae", "autoencoder")):
        module, loss, tensors = probe_parts(models[kind], images, 12, part=part)
        with torch.no_grad():
            alone = loss(module, *(x[7:8] for x in tensors))
            assert torch.allclose(loss(module, *tensors)[7:8], alone, atol=1e-5)


def test_wrong_questions_are_answered_in_one_sentence(models, images):
    with pytest.raises(UserError, match="has no autoencoder"):
        probe_parts(models["gan"], images, 4, part="autoencoder")
    with pytest.raises(UserError, match="Did you mean 'generator'"):
        probe_parts(models["gan"], images, 4, part="genrator")
    with pytest.raises(UserError, match="has 60"):
        probe_parts(models["gan"], images, 61, part="generator")
    with pytest.raises(UserError, match=r"\(1, 8, 8\)"):
        probe_parts(models["vae"], load_images("gaussian(size=16, count=20)"), 4, part="autoencoder")
