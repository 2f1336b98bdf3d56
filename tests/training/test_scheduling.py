"""Schedulers of torch: a run follows them to the last digit, and they are part of its spec."""

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

import consistency_lab as cl
from consistency_lab.store.run import Run
from consistency_lab.training.scheduling import scheduled_rate
from consistency_lab.training.settings import TrainingSettings

TINY = {"network": "mlp(width=16, depth=1)", "steps": 60, "batch": 32, "device": "cpu", "progress": False}
MAKERS = {
    "cosine": lambda optimizer: torch_schedulers.CosineAnnealingLR(optimizer, 60),
    "one cycle": lambda optimizer: torch_schedulers.OneCycleLR(optimizer, 0.01, total_steps=60, cycle_momentum=False),
    "steps": lambda optimizer: torch_schedulers.MultiStepLR(optimizer, [20, 40]),
    "sequence": lambda optimizer: torch_schedulers.SequentialLR(
        optimizer,
        [torch_schedulers.LinearLR(optimizer, 0.1, total_iters=5), torch_schedulers.ExponentialLR(optimizer, 0.9)],
        [5],
    ),
}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_rates_are_those_of_a_loop_of_torch(name, optimizer):
    settings = TrainingSettings(steps=60, lr=0.004, optimizer=optimizer)
    rate = scheduled_rate(MAKERS[name], settings)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.004)
    scheduler = MAKERS[name](theirs)
    for step in range(60):
        assert rate(step) * 0.004 == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        theirs.step()
        if step < 59:
            scheduler.step()


def test_a_schedulers_linear_decay_trains_what_that_of_the_settings_does(images):
    def linear(optimizer):
        return torch_schedulers.LambdaLR(optimizer, lambda step: 1.0 - step / 60)

    ours = cl.train(images, **TINY, lr_warmup=0, lr_final=0.0, optimizer="sgd")
    theirs = cl.train(images, **TINY, lr_scheduler=linear, optimizer="sgd")
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-7)


def test_a_scheduler_is_part_of_the_spec_and_of_the_log(images, tmp_path):
    model = cl.train(images, **TINY, store=tmp_path, lr_scheduler=MAKERS["steps"])
    assert model.facts["spec"]["lr_scheduler"]["name"] == "MultiStepLR"
    assert [record["lr"] for record in Run.open(model.folder).records()] == pytest.approx([2e-4, 2e-5, 2e-5])
    specs = [cl.train(images, **TINY, lr_scheduler=make).facts["spec"] for make in (MAKERS["steps"], MAKERS["cosine"])]
    assert specs[0] == model.facts["spec"]
    assert specs[1] != specs[0]
    assert "lr_scheduler" not in cl.train(images, **TINY).facts["spec"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scheduler": lambda optimizer: torch_schedulers.ReduceLROnPlateau(optimizer)}, "waits for a loss"),
        ({"lr_scheduler": lambda optimizer: torch_schedulers.OneCycleLR(optimizer, 0.01, 60)}, "cycle_momentum=False"),
        (
            {"lr_scheduler": lambda optimizer: torch_schedulers.OneCycleLR(optimizer, 1, 9, cycle_momentum=False)},
            "does not reach step 11",
        ),
        (
            {"lr_scheduler": lambda optimizer: torch_schedulers.LambdaLR(optimizer, lambda step: -1)},
            "gives the rate -0",
        ),
        ({"lr_scheduler": "cosine"}, "a function that makes a scheduler"),
        ({"lr_scheduler": lambda optimizer: None}, "a function that makes a scheduler"),
        ({"lr_scheduler": MAKERS["cosine"], "lr_final": 0.0}, "leave one of the two out"),
        ({"lr_scheduler": MAKERS["cosine"], "lr_warmup": 5}, "leave one of the two out"),
        ({"learning_rate": 1e-3}, "the peak learning rate is lr"),
        ({"batch_size": 8}, "images a step are batch"),
        ({"epochs": 3}, "the length of a run is steps"),
    ],
)
def test_what_is_no_scheduler_or_another_librarys_word_is_refused(images, options, message):
    with pytest.raises(cl.UserError, match=message):
        cl.train(images, **TINY, **options)
