import numpy as np
import pytest
import torch

from consistency_lab.contrast.gan import train_gan
from consistency_lab.contrast.vae import train_vae
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.probes.operators import GaussNewton, Hessian
from consistency_lab.studies.contrast_subject import contrast_subject, named_subject

PARTS = [("gan", "generator"), ("gan", "discriminator"), ("vae", "autoencoder")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def models(store):
    images, options = (
        load_images("digits"),
        {"steps": 2, "batch": 16, "progress": False, "device": "cpu", "store": store},
    )
    gan = train_gan(images, generator="latent(latent=4, width=4)", discriminator="conv(width=4)", name="gan", **options)
    return {"gan": gan, "vae": train_vae(images, autoencoder="conv(latent=4, width=4)", name="vae", **options)}


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_gauss_newton_is_a_part_of_the_hessian_of_every_part(models, kind, part):
    subject = contrast_subject(models[kind], load_images("digits"), part=part, count=6)
    subject.check()
    gauss_newton, hessian = GaussNewton(subject), Hessian(subject)  # the first refuses a split that is not the loss
    vectors = torch.randn(hessian.size, 3, generator=torch.Generator().manual_seed(0))
    first, second = gauss_newton @ vectors, hessian @ vectors
    assert ((vectors * first).sum(0) >= -1e-6 * (vectors * second).sum(0).abs()).all()
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    assert abs(float(cosine)) < 0.999999  # the rest of the Hessian may have any sign


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_part_has_a_landscape(models, kind, part):
    subject = contrast_subject(models[kind], load_images("digits"), part=part, count=6)
    result = line_landscape(subject, points=5)
    assert float(result["loss"].sel(position=0.0)) == pytest.approx(float(subject.losses().mean()), rel=1e-12)
    for name in ("relative_curvature", "roughness", "predictiveness", "relative_lipschitz"):
        assert np.isfinite([float(result[name]), float(result[f"{name}_low"]), float(result[f"{name}_high"])]).all()


def test_runs_are_found_by_name_whatever_they_are(models, store):
    images = load_images("digits")
    generator = named_subject("gan", images, store=store, device="cpu", count=4)
    assert generator.name == "gan generator"
    assert named_subject("gan", images, store=store, device="cpu", count=4, part="discriminator").levels == 1
    assert torch.equal(generator.losses(), contrast_subject(models["gan"], images, count=4).losses())
    assert named_subject("vae", images, store=store, device="cpu", count=4).name == "vae"
    with pytest.raises(UserError, match="has no generator"):
        named_subject("vae", images, store=store, device="cpu", count=4, part="generator")
