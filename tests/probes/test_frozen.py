import pytest
import torch
from torch import nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.probes.frozen import FrozenBatch, check_deterministic, frozen_grid, untouched


def model_on(schedule, classes=0):
    return DiffusionModel("m", ConstantDenoiser(torch.zeros(1, 8, 8), schedule), classes=classes)


def square(model, x):
    return model(x).pow(2).flatten(1).mean(1)


def test_the_grid_repeats_images_and_noise_at_every_level():
    images, schedule = load_images("digits"), SCHEDULES.build("linear")
    batch, times = frozen_grid(images, model_on(schedule), count=5, bins=4, seed=3)
    x0, t, eps = (x.reshape(4, 5, *x.shape[1:]) for x in batch.tensors)
    assert torch.equal(x0, images.batch(torch.arange(5)).expand(4, -1, -1, -1, -1))
    assert (eps == eps[:1]).all()
    assert torch.equal(t, times[:, None].expand(4, 5))
    width = (schedule.t_max - schedule.t_min) / 4
    assert float(times[0]) == pytest.approx(schedule.t_min + width / 2)


def test_fingerprints_tell_batches_apart():
    a = FrozenBatch([torch.zeros(4, 2), torch.ones(4)])
    assert a.fingerprint == FrozenBatch([torch.zeros(4, 2), torch.ones(4)], chunk=2).fingerprint
    assert a.fingerprint != FrozenBatch([torch.zeros(4, 2), torch.zeros(4)]).fingerprint
    assert a.fingerprint != FrozenBatch([torch.zeros(2, 4), torch.ones(2, 2)]).fingerprint


def test_chunks_give_the_same_losses():
    model, x = nn.Linear(3, 3), torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    whole = FrozenBatch([x]).losses(model, square)
    assert torch.allclose(whole, FrozenBatch([x], chunk=3).losses(model, square), atol=1e-6)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_model_comes_back_bit_identical_also_after_a_failure(error):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    model[0].bias.requires_grad_(False)
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(error), untouched(model):
        model.train()
        model(torch.randn(8, 3))
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.data.add_(1.0)
            parameter.grad = None
        raise error
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert torch.equal(model[0].weight.grad, torch.ones(3, 3))
    assert (model[0].training, model[1].training) == (True, False)


def test_losses_that_draw_are_refused():
    batch = FrozenBatch([torch.randn(8, 3)])
    dropout = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    with pytest.raises(UserError, match="draws random numbers"):
        check_deterministic(dropout, square, batch)
    check_deterministic(dropout.eval(), square, batch)
    with pytest.raises(UserError, match="draws random numbers"):
        check_deterministic(nn.Linear(3, 3), lambda m, x: square(m, x + torch.randn_like(x)), batch)
    with pytest.raises(UserError, match="one value per sample"):
        check_deterministic(nn.Linear(3, 3), lambda m, x: square(m, x).mean(), batch)


def test_impossible_batches_are_refused():
    images, schedule = load_images("digits"), SCHEDULES.build("linear")
    for tensors in ([], [torch.zeros(0, 2)], [torch.zeros(2), torch.zeros(3)]):
        with pytest.raises(UserError, match="frozen batch"):
            FrozenBatch(tensors)
    with pytest.raises(UserError, match="has 1797"):
        frozen_grid(images, model_on(schedule), count=2000, bins=3)
    with pytest.raises(UserError, match="noise level"):
        frozen_grid(images, model_on(schedule), count=2, bins=0)


def test_conditional_models_are_probed_with_the_labels_of_the_images():
    images, schedule = load_images("digits"), SCHEDULES.build("linear")
    batch, _ = frozen_grid(images, model_on(schedule, classes=10), count=5, bins=2)
    assert torch.equal(batch.tensors[3].reshape(2, 5), images.labels[:5].expand(2, 5))
    with pytest.raises(UserError, match="no labels"):
        frozen_grid(ImageSet("bare", images.pixels), model_on(schedule, classes=10), count=5, bins=2)
