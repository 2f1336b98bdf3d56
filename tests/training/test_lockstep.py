"""Models in lock-step are what they are alone, to rounding; and to the bit whatever their company."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.networks.stacked import StackedNetwork
from consistency_lab.store.runs import Store
from consistency_lab.training.lockstep import Lockstep, alike, placed, train_together
from consistency_lab.training.stopping import Stopped
from consistency_lab.training.train import DIFFUSION_KIND, build_denoiser, load_model, training_spec

CPU = torch.device("cpu")
NETWORKS = ["mlp(width=32)", "unet(width=8)", "dit(width=32, depth=1)"]
DIFFER = [
    {"seed": 0},
    {"seed": 1, "lr": 1e-4, "timesteps": "stratified"},
    {"seed": 2, "momentum": "mdlrc", "weighting": "p2"},
]


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits")


def loop_of(images, **changes):
    settings = cl.TrainingSettings.of(**{"steps": 30, "batch": 16, "snapshots": 2, "lr_warmup": 2, **changes})
    return DIFFUSION_KIND.loop(build_denoiser(training_spec(images, settings, CPU)), images, settings, CPU)


def together(loops, steps):
    group = Lockstep(loops)
    for _ in range(steps):
        group.differentiate(loops)
        for loop in loops:
            loop._advance()
    return loops


def advanced(loop, steps):
    for _ in range(steps):
        loop._advance()
    return loop


def apart(a, b):
    pairs = zip(a.module.state_dict().values(), b.module.state_dict().values(), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_lock_step_trains_what_one_after_the_other_trains(images, network):
    mine = [loop_of(images, network=network, lockstep=f"{k}/3", **own) for k, own in enumerate(DIFFER, 1)]
    alone = [advanced(loop_of(images, network=network, **own), 4) for own in DIFFER]
    start = loop_of(images, network=network)
    for together_, by_itself in zip(together(mine, 4), alone, strict=True):
        assert apart(together_, by_itself) < 2e-5
        assert apart(by_itself, start) > 1e-4  # they have moved
        moved = zip(together_.average.weights.values(), by_itself.average.weights.values(), strict=True)
        assert max(float((x - y).abs().max()) for x, y in moved) < 2e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_bits_depend_on_the_place_among_how_many_and_not_on_company(images, network, precision):
    make = partial(loop_of, images, network=network, precision=precision)
    first, second, third = together([make(lockstep=f"{k}/3", **own) for k, own in enumerate(DIFFER, 1)], 3)
    other = together([make(lockstep="3/3", **DIFFER[2]), make(lockstep="1/3", seed=7)], 3)[0]
    alone = advanced(make(lockstep="2/3", **DIFFER[1]), 3)
    assert apart(third, other) == 0
    assert apart(second, alone) == 0
    assert apart(first, second) > 0


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stacked_network_answers_and_differentiates_as_each_by_itself(images, network, labelled):
    loops = [loop_of(images, network=network, conditional=labelled, seed=seed) for seed in range(3)]
    networks = [advanced(loop, 1).module.network for loop in loops]
    theirs = copy.deepcopy(networks)
    stacked = StackedNetwork([*networks, None])
    stacked.tie()
    draw = torch.Generator().manual_seed(0)
    x, t = torch.randn(20, 1, 8, 8, generator=draw), torch.rand(20, generator=draw)
    cond = torch.randint(0, 10, (20,), generator=draw) if labelled else None
    out = stacked(x, t, cond)
    out.square().sum().backward()
    stacked.gradients()
    for k, (mine, other) in enumerate(zip(networks, theirs, strict=True)):
        part = slice(5 * k, 5 * k + 5)
        expected = other(x[part], t[part], None if cond is None else cond[part])
        torch.testing.assert_close(out[part], expected, rtol=1e-4, atol=1e-5)
        expected.square().sum().backward()
        for a, b in zip(mine.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    with torch.no_grad():  # what changes the networks' weights in place changes these
        for parameter in networks[0].parameters():
            parameter.mul_(1.2)
        part = slice(0, 5)
        expected = networks[0](x[part], t[part], None if cond is None else cond[part])
        torch.testing.assert_close(stacked(x, t, cond)[part], expected, rtol=1e-4, atol=1e-5)


def in_store(images, store, loops, names):
    """`steps_in_store` of each, as `train_together` wants it."""

    def steps(loop, check):
        spec, name = training_spec(images, loop.settings, CPU), names[loops.index(loop)]
        return DIFFUSION_KIND.steps(store, name, spec, loop, check)

    return steps


def weights(run):
    return load_model(run, device="cpu").denoiser.state_dict()


def equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_runs_in_lock_step_are_stored_stopped_and_resumed_to_the_bit(images, tmp_path):
    names = ["a", "b", "c"]

    def make(seed):
        return loop_of(images, network="mlp(width=32)", lockstep=f"{seed + 1}/3", seed=seed)

    loops = [make(seed) for seed in range(3)]
    whole = dict(train_together(loops, in_store(images, Store(tmp_path / "whole"), loops, names), lambda: None))
    assert [run.name for _, run in sorted(whole.items())] == names
    assert all(run.done and len(run.records()) == 2 for run in whole.values())

    calls = iter(range(10**6))

    def press():
        if next(calls) == 25:
            raise Stopped("stopped")

    store, loops = Store(tmp_path / "stopped"), [make(seed) for seed in range(3)]
    with pytest.raises(Stopped):
        dict(train_together(loops, in_store(images, store, loops, names), press))
    assert not any(run.done for run in store.runs())
    assert len(store.runs()) == 3
    # One of them goes on by itself, and then the other two.
    single = cl.train(images, settings=loops[1].settings, store=store, name="b", device="cpu", progress=False)
    rest = [make(seed) for seed in (0, 2)]
    found = dict(train_together(rest, in_store(images, store, rest, ["a", "c"]), lambda: None))
    assert equal(single.denoiser.state_dict(), weights(whole[1]))
    assert equal(weights(found[0]), weights(whole[0]))
    assert equal(weights(found[1]), weights(whole[2]))


def test_the_time_of_a_step_is_shared(images, tmp_path):
    loops = [loop_of(images, network="mlp(width=32)", lockstep=f"{seed + 1}/2", seed=seed) for seed in range(2)]
    found = dict(train_together(loops, in_store(images, Store(tmp_path), loops, ["a", "b"]), lambda: None))
    assert all(loop.sharing == 2 for loop in loops)
    assert all(run.records()[-1]["seconds"] > 0 for run in found.values())


def test_one_that_diverges_ends_alone(images, tmp_path):
    both = [(0, 1e30), (1, 1e-3)]
    loops = [loop_of(images, network="mlp(width=32)", lockstep=f"{s + 1}/2", seed=s, lr=lr) for s, lr in both]
    found = {}
    with pytest.raises(UserError, match="diverged"):
        for place, run in train_together(loops, in_store(images, Store(tmp_path), loops, ["a", "b"]), lambda: None):
            found[place] = run
    assert list(found) == [1]
    alone = cl.train(images, settings=loops[1].settings, device="cpu", progress=False)
    assert equal(weights(found[1]), alone.denoiser.state_dict())


def test_a_lock_step_is_part_of_the_spec_where_there_is_one(images):
    one = cl.TrainingSettings()
    two = placed([one, one.replace(seed=1)])[1]
    assert "lockstep" not in training_spec(images, one, CPU)["settings"]
    assert training_spec(images, two, CPU)["settings"]["lockstep"] == "2/2"
    assert two.place == (1, 2)
    assert alike(two, two.replace(seed=3, lr=0.1, timesteps="stratified"))
    assert not alike(two, two.replace(network="mlp"))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5)

    def forward(self, x, t, cond=None):
        return self.drop(self.layer(x))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))

    def forward(self, x, t, cond=None):
        return self.layers(x)


class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, cond=None):
        out = self.layer(x)
        return out if float(out.sum()) > 0 else -out


def test_what_cannot_be_computed_at_once_is_refused(images):
    with pytest.raises(UserError, match="dropout"):
        StackedNetwork([Noisy(), Noisy()])
    with pytest.raises(UserError, match="running_mean"):
        StackedNetwork([Counting(), Counting()])
    with pytest.raises(UserError, match="one architecture"):
        StackedNetwork([loop_of(images, network=name).module.network for name in NETWORKS[:2]])
    with pytest.raises(UserError, match="Asking at once"):
        StackedNetwork([Asking(), Asking()])(torch.zeros(2, 1, 8, 8), torch.zeros(2))
    for places in (("1/2", "1/2"), ("1/2", "2/3")):
        with pytest.raises(UserError, match=f"a place of their own, not {', '.join(places)}"):
            Lockstep([loop_of(images, network="mlp(width=8)", lockstep=place) for place in places])
    for wrong in ("8", "0/2", "3/2", "a/b", "1/2/3"):
        with pytest.raises(UserError, match="such as '2/8'"):
            cl.TrainingSettings(lockstep=wrong)
