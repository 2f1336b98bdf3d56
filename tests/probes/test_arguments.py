"""What is no model, image set or subject is refused in a sentence, before anything is computed."""

import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import VAE
from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.probes.curvature import curvature_spectrum, probe_curvature
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import line_landscape, probe_landscape
from consistency_lab.probes.plane import plane_landscape, probe_plane
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table
from consistency_lab.probes.structure import probe_structure
from consistency_lab.probes.subject import diffusion_subject

MODEL = DiffusionModel("exact", ConstantDenoiser(torch.zeros(1, 8, 8), SCHEDULES.build("linear")))
IMAGES = ImageSet("noise", torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)
PROBES = [probe_difficulty, probe_structure, probe_landscape, probe_plane, probe_curvature]
NO_MODEL = r"a str is no model; give what load\('unet-s0'\) returns"


@pytest.mark.parametrize("probe", PROBES)
def test_models_and_images_are_no_strings(probe):
    for arguments, message in (
        (("unet-s0", IMAGES), NO_MODEL),
        ((MODEL, "digits"), r"write load_images\('digits'\)"),
        ((MODEL, np.zeros((4, 1, 8, 8))), "not as ndarray; write ImageSet.from_array"),
        ((IMAGES, MODEL), "a ImageSet is no model"),
    ):
        with pytest.raises(UserError, match=message):
            probe(*arguments)


@pytest.mark.parametrize("probe", PROBES)
def test_a_vae_has_no_noise_levels(probe):
    vae = ContrastModel("vae-s0", VAE((1, 8, 8), width=4))
    with pytest.raises(UserError, match="'vae-s0' is no diffusion model"):
        probe(vae, IMAGES)


def test_other_models_other_sets_and_noise_are_no_strings_either():
    for call, message in (
        (lambda: probe_landscape(MODEL, IMAGES, towards="unet-s0"), NO_MODEL),
        (lambda: probe_plane(MODEL, IMAGES, through=[MODEL, "unet-s0"]), NO_MODEL),
        (lambda: probe_structure([MODEL, "unet-s0"], IMAGES), NO_MODEL),
        (lambda: probe_structure(MODEL, IMAGES, 1), r"write SharedNoise\(1\)"),
        (
            lambda: probe_difficulty(MODEL, IMAGES, count=4, bins=2, training_images="digits"),
            r"load_images\('digits'\)",
        ),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_subjects_are_no_models():
    subject = diffusion_subject(MODEL, IMAGES)
    for call in (
        lambda: line_landscape(MODEL),
        lambda: line_landscape(subject, towards="unet-s0"),
        lambda: plane_landscape("unet-s0"),
        lambda: plane_landscape(subject, through=[subject, MODEL]),
        lambda: curvature_spectrum(MODEL),
    ):
        with pytest.raises(UserError, match=r"is no subject; give what diffusion_subject\(model, images\)"):
            call()


@pytest.mark.parametrize("read", [difficulty_table, difficulty_correlations])
def test_a_table_of_definitions_is_read_off_a_difficulty_result(read):
    for other in ("difficulty.nc", xr.Dataset(attrs={"kind": "landscape"})):
        with pytest.raises(UserError, match="this needs a difficulty result"):
            read(other)
