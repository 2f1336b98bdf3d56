"""A network of the user's own in the place of a registered name: a module, a class, a function."""

import copy
import logging

import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.networks.own import code_digest, own_network, weights_digest
from consistency_lab.networks.registry import build_network
from consistency_lab.training.train import load_snapshots

TINY = {"steps": 30, "batch": 32, "lr_warmup": 5, "snapshots": 2, "device": "cpu", "progress": False}
MLP = "mlp(width=16, depth=1)"


class Net(nn.Module):
    """No class of this package."""

    def __init__(self, width=8, classes=0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(65, width), nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, 64))
        self.label = nn.Embedding(classes + 1, 64) if classes else None

    def forward(self, x, t, cond=None):
        out = self.layers(torch.cat([x.flatten(1), t[:, None]], 1))
        if self.label is not None:
            none = self.label.num_embeddings - 1
            out = out + self.label(torch.full_like(t, none, dtype=torch.long) if cond is None else cond)
        return out.view_as(x)


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


def test_a_module_or_what_makes_it_trains_like_the_registered_name_to_the_bit(images):
    named = cl.train(images, network=MLP, seed=3, **TINY)
    module = build_network(MLP, images.shape, 0, 3)
    before = copy.deepcopy(module.state_dict())
    as_module = cl.train(images, network=module, seed=3, **TINY)
    made = cl.train(images, network=lambda shape, classes: cl.NETWORKS.build(MLP, shape, classes), seed=3, **TINY)
    assert torch.equal(weights(named), weights(as_module))
    assert torch.equal(weights(named), weights(made))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())  # a copy was trained
    assert as_module.name == "MLP-s3"
    assert as_module.facts["network"] == "MLP"
    # Where the weights came from does not matter, and another seed of what makes them does.
    assert as_module.facts["spec"] == made.facts["spec"]
    other = cl.train(images, network=lambda *given: cl.NETWORKS.build(MLP, *given), seed=4, **TINY)
    assert other.facts["spec"]["settings"]["network"]["weights"] != made.facts["spec"]["settings"]["network"]["weights"]


def test_the_global_random_state_stays(images):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    own_network(lambda shape, classes: Net(), images.shape, 0, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_store_keeps_it_once_and_needs_it_again(images, tmp_path, caplog, monkeypatch):
    module = Net()
    model = cl.train(images, network=module, store=tmp_path, **TINY)
    monkeypatch.setattr("consistency_lab.training.run_io._train_in", lambda *_: pytest.fail("trained twice"))
    assert torch.equal(weights(cl.train(images, network=module, store=tmp_path, **TINY)), weights(model))
    for loading in (lambda: cl.load("Net-s0", store=tmp_path), lambda: cl.load_model(model.folder)):
        with pytest.raises(cl.UserError, match=r"a network of your own, Net, .* load_model\(FOLDER, network=Net\("):
            loading()
    caplog.set_level(logging.WARNING)
    for network in (Net(), lambda shape, classes: Net()):
        again = cl.load_model(model.folder, network=network, device="cpu")
        assert torch.equal(again.generate(cl.SharedNoise(0), range(2)), model.generate(cl.SharedNoise(0), range(2)))
    assert caplog.text == ""
    with pytest.raises(cl.UserError, match="another architecture"):
        cl.load_model(model.folder, network=Net(width=9))
    steps, along = zip(*load_snapshots(model), strict=True)
    assert steps == (25, 30)
    assert torch.equal(weights(along[-1]), weights(model))
    monkeypatch.undo()
    named = cl.train(images, network=MLP, store=tmp_path, **TINY)
    with pytest.raises(cl.UserError, match="leave network out"):
        cl.load_model(named.folder, network=Net())


def test_other_weights_or_other_code_are_another_run(images, caplog, tmp_path):
    first, second = Net(), Net()
    assert weights_digest(first) != weights_digest(second)
    assert code_digest(first) == code_digest(second)

    class Edited(Net):
        def forward(self, x, t, cond=None):
            return 2 * super().forward(x, t, cond)

    Edited.__name__ = "Net"
    edited = Edited()
    edited.load_state_dict(first.state_dict())
    assert weights_digest(edited) == weights_digest(first)
    assert code_digest(edited) != code_digest(first)
    assert code_digest(Net(width=9)) != code_digest(first)
    frozen = copy.deepcopy(first)
    frozen.layers[0].weight.requires_grad_(False)
    assert weights_digest(frozen) != weights_digest(first)
    model = cl.train(images, network=first, store=tmp_path, **TINY)
    cl.load_model(model.folder, network=edited)
    assert "the code of Net (or Python) is not what this run was trained with" in caplog.text


def test_a_conditional_network_of_ones_own(images):
    model = cl.train(images, network=lambda shape, classes: Net(classes=classes), conditional=True, **TINY)
    assert model.classes == 10
    assert model.guided(2.0).generate(cl.SharedNoise(0), range(2)).isfinite().all()


class TwoArguments(Net):
    def forward(self, x, t):
        return x


class Averaged(Net):
    def forward(self, x, t, cond=None):
        return x.mean(1)


class InPlace(Net):
    def forward(self, x, t, cond=None):
        return super().forward(x.mul_(0.5), t, cond)


class Drawing(Net):
    def forward(self, x, t, cond=None):
        return x + torch.randn_like(x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (InPlace(), r"writes into the images that it is given.* x = x \* 0\.5"),
        (nn.Sequential(nn.ReLU(inplace=True)), "was called as"),
        (Drawing(), "answers differently each time that it is asked the same in eval mode"),
        (3, "a name, a torch module, or a function that makes one, not 3"),
        (lambda: Net(), r"called with \(shape, classes\) = \(\(1, 8, 8\), 0\)"),
        (lambda shape, classes: None, "returned a NoneType"),
        (TwoArguments(), r"network\(x, t, cond\) .* Write forward\(self, x, t, cond=None\)"),
        (Averaged(), r"returned \(2, 8, 8\); return a tensor shaped as the images"),
        (nn.Sequential(nn.LazyLinear(3)), "raised TypeError"),
        (torch.jit.trace(Net().eval(), (torch.zeros(2, 1, 8, 8), torch.zeros(2))), "give a function that makes it"),
    ],
)
def test_what_is_no_network_is_refused(images, tmp_path, network, message):
    with pytest.raises(cl.UserError, match=message):
        cl.train(images, network=network, store=tmp_path, **TINY)
    assert list(tmp_path.iterdir()) == []
