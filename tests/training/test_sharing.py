"""Several processes train what one trains. Here they are threads; `test_processes.py` starts real ones."""

import copy
import queue
import signal
import sys
import threading
from functools import partial

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import nn

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.contrast.gan import train_gan
from consistency_lab.errors import UserError
from consistency_lab.paper.race.race import race
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import Fleet
from consistency_lab.training import group as groups
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.group import Group, Joined, shared_device
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.processes import started
from consistency_lab.training.run_io import train_in_store, train_unkept
from consistency_lab.training.sharing import SharedLoop, in_company
from consistency_lab.training.stopping import Stopped
from consistency_lab.training.train import DIFFUSION_KIND, build_denoiser, denoising_loss, training_spec
from consistency_lab.training.watching import Watch

CPU = torch.device("cpu")
BUILDING = threading.Lock()  # threads share the random state that weights are drawn from
FOLLOWING = {"timesteps": "loss_root(history=1, cells=5)", "momentum": "mdlrc", "lr": 5e-3, "clip_norm": 0.5}


class Thread(Group):
    """One of several threads that share a table."""

    def __init__(self, index, table):
        self.index, self.count, (self.places, self.letters, self.barrier) = index, len(table[0]), table

    def tell(self, word, content=None):
        for letters in self.letters[1:]:
            letters.put((word, copy.deepcopy(content)))

    def hear(self):
        return self.letters[self.index].get(timeout=30)

    def gathered(self, value):
        self.places[self.index] = value
        self.barrier.wait()
        found = list(self.places)
        self.barrier.wait()
        return found

    def add(self, values):
        values.copy_(sum(self.gathered(values.clone())))


def each(count, work):
    """What ``work(group)`` returned or raised, in each of several threads, the first of which is this one."""
    table = [None] * count, [queue.Queue() for _ in range(count)], threading.Barrier(count, timeout=30)
    ends = [None] * count

    def run(index):
        try:
            ends[index] = work(Thread(index, table))
        except BaseException as error:
            ends[index] = error

    others = [threading.Thread(target=run, args=(index,)) for index in range(1, count)]
    for other in others:
        other.start()
    run(0)
    for other in others:
        other.join(60)
    return ends


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def settings_of(**changes):
    return cl.TrainingSettings.of(
        **{"network": "mlp(width=16, depth=1)", "steps": 50, "batch": 24, "lr_warmup": 5, **changes}
    )


def loop_of(images, group=None, network=None, **changes):
    with BUILDING:
        return _loop_of(images, group, network, **changes)


def _loop_of(images, group, network, **changes):
    settings = settings_of(**changes)
    denoiser = build_denoiser(
        training_spec(images, settings_of(**{**changes, "network": "mlp(width=16, depth=1)"}), CPU)
    )
    if network is not None:
        denoiser.network = network()
    make = TrainingLoop if group is None else partial(SharedLoop, group=group)
    return make(denoiser, denoising_loss, DenoisingBatches(images, settings, CPU), settings, CPU)


def trained(images, group, **changes):
    """A loop, trained to its end, and the loss of each of its steps (of the first process)."""
    loop, losses = loop_of(images, group, **changes), []
    if group is None:
        losses += [float(step.loss) for step in loop]
    else:
        in_company(loop, {"settings": {}}, lambda: losses.extend(float(step.loss) for step in loop))
    return loop, losses


def apart(a, b):
    return max(float((a[key] - b[key]).abs().max()) for key in a)


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (2, FOLLOWING),
        (3, {"timesteps": "loss_second_moment(history=1, cells=5)", "optimizer": "adamw", "lr_final": 0.1}),
        (4, {"timesteps": "clusters(patience=2)", "optimizer": "sgd", "lr": 0.05, "conditional": True, "flip": True}),
    ],
)
def test_several_processes_train_what_one_trains_and_all_hold_the_same(images, count, changes):
    alone, losses = trained(images, None, **changes)
    loops = each(count, lambda group: trained(images, group, **changes))
    first = loops[0][0]
    assert loops[0][1] == pytest.approx(losses, abs=1e-5)
    assert apart(first.module.state_dict(), alone.module.state_dict()) < 1e-5
    assert apart(first.average.weights, alone.average.weights) < 1e-5
    assert apart(first.module.state_dict(), loop_of(images, **changes).module.state_dict()) > 1e-2  # it has moved
    masses = [loop.source.sampler.masses(50) for loop in (first, alone)]
    assert masses[0] == pytest.approx(masses[1], abs=1e-5)
    assert masses[0].std() > 0  # and the density with the losses
    for other, _ in loops[1:]:
        assert other.step == 50
        assert apart(other.module.state_dict(), first.module.state_dict()) == 0
        assert apart(other.average.weights, first.average.weights) == 0
        assert (other.source.sampler.masses(50) == masses[0]).all()


class Experts(nn.Module):
    """Of its parts one works on late times only, and one never."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.late, self.never = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x, t, cond=None):
        flat = x.flatten(1)
        out = self.always(flat)
        if (late := t > 0.7).any():
            out = out.index_add(0, late.nonzero()[:, 0], self.late(flat[late]))
        return out.view_as(x)


def test_a_part_that_one_process_or_none_has_used_is_trained_as_in_one(images):
    how = {"network": Experts, "batch": 4, "optimizer": "adamw(weight_decay=0.1)"}
    alone, _ = trained(images, None, **how)
    first, second = (loop for loop, _ in each(2, lambda group: trained(images, group, **how)))
    assert apart(first.module.state_dict(), alone.module.state_dict()) < 1e-5
    assert apart(first.module.state_dict(), second.module.state_dict()) == 0
    assert apart(first.module.state_dict(), loop_of(images, **how).module.state_dict()) > 1e-2
    assert torch.equal(first.module.network.never.weight, Experts().never.weight)  # no decay either


def stored(images, store, group, watch=None, **changes):
    loop = loop_of(images, group, **changes)
    spec = training_spec(images, loop.settings, CPU)
    options = {"keep": DIFFUSION_KIND._kept, "progress": False, "watch": watch}

    def lead():
        assert group.index == 0
        return train_in_store(store, "model", "shared", spec, loop, **options)

    return in_company(loop, spec, lead)


def content(run):
    files = sorted(run.folder.rglob("*.safetensors"))
    tensors = {f"{file.name} {key}": value for file in files for key, value in load_tensors(file)[0].items()}
    return tensors, [{key: value for key, value in record.items() if key != "seconds"} for record in run.records()]


def test_a_stop_is_the_first_ones_to_decide_and_the_resume_gives_the_same_bits(images, tmp_path, monkeypatch):
    whole = each(3, lambda group: stored(images, tmp_path / "whole", group, **FOLLOWING))
    assert [run.folder for run in whole] == [whole[0].folder] * 3
    advance = SharedLoop._advance

    def stopping(loop):
        if loop.step == 30 and loop.group.index == 0:
            signal.raise_signal(signal.SIGINT)
        return advance(loop)

    monkeypatch.setattr(SharedLoop, "_advance", stopping)
    ends = each(3, lambda group: stored(images, tmp_path / "stopped", group, **FOLLOWING))
    assert {str(end) for end in ends} == {
        "training shared stopped at step 31 of 50; the same command resumes from there."
    }
    assert all(isinstance(end, Stopped) for end in ends)
    monkeypatch.undo()
    resumed = each(3, lambda group: stored(images, tmp_path / "stopped", group, **FOLLOWING))
    (tensors, records), (expected, log) = content(resumed[2]), content(whole[0])
    assert records == log
    assert tensors.keys() == expected.keys()
    assert apart(tensors, expected) == 0
    again = each(3, lambda group: stored(images, tmp_path / "stopped", group, **FOLLOWING))  # which the store has
    assert [run.hash for run in again] == [run.hash for run in whole]


def test_a_callback_is_the_first_ones_and_stops_all(images, tmp_path):
    told = []
    watches = [Watch(lambda record: told.append(record["step"]) or True), None]
    runs = each(2, lambda group: stored(images, tmp_path, group, watches[group.index]))
    assert told == [25]
    assert [run.spec["stopped"] for run in runs] == [25, 25]
    assert runs[0].folder == runs[1].folder


def test_what_ends_the_first_process_ends_all(images):
    def diverging(group):
        loop = loop_of(images, group, lr=1e30)
        in_company(loop, {"settings": {}}, lambda: train_unkept(loop, "shared", False))

    ends = each(2, diverging)
    assert all(isinstance(end, UserError) for end in ends)
    assert str(ends[0]) == str(ends[1])
    assert "the training of shared diverged" in str(ends[0])


def test_different_specs_are_refused_in_every_process(images):
    def differing(group):
        loop = loop_of(images, group)
        in_company(loop, {"settings": settings_of(seed=group.index).spec()}, lambda: None)

    for end in each(2, differing):
        assert isinstance(end, UserError)
        assert "different things to train" in str(end)
        assert "noise=1" in str(end)


class Remembering(nn.Linear):
    """Keeps a mean of what it has seen."""

    def __init__(self):
        super().__init__(64, 64)
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x, t, cond=None):
        self.mean.lerp_(x.detach().flatten(1).mean(0), 0.1)
        return super().forward(x.flatten(1) - self.mean).view_as(x)


class Normalised(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": Remembering}, "hold different networks"),
        ({"network": Normalised}, "batch norm"),
        ({"batch": 25}, "25 images cannot be divided among 2 processes; make batch a multiple of 2"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_every_process(images, changes, said):
    for end in each(2, lambda group: trained(images, group, **changes)):
        assert isinstance(end, UserError)
        assert said in str(end)


def test_words_and_sums_go_through_gloo(monkeypatch):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    sent = []
    monkeypatch.setattr(groups.dist, "broadcast", lambda tensor, root, group: sent.append(tensor.clone()))
    try:
        group = Joined()
        group.tell(1)
        group.tell(0, {"weights": torch.arange(3.0), "step": 7})
        monkeypatch.setattr(groups.dist, "broadcast", lambda tensor, root, group: tensor.copy_(sent.pop(0)))
        assert group.hear() == (1, None)
        word, heard = group.hear()
        assert (word, heard["step"], heard["weights"].tolist(), sent) == (0, 7, [0.0, 1.0, 2.0], [])
        assert group.gathered({"a": 1}) == [{"a": 1}]
        values = torch.arange(4.0)
        group.add(values)
        assert values.tolist() == [0.0, 1.0, 2.0, 3.0]
    finally:
        dist.destroy_process_group()
    with pytest.raises(UserError, match="has ended"), groups._together():
        raise RuntimeError("Connection closed by peer\nmore")


def test_the_number_of_processes_is_part_of_the_spec_where_there_are_several(images, monkeypatch):
    one = training_spec(images, settings_of(), CPU)
    assert "processes" not in one
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert training_spec(images, settings_of(), CPU) == one
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert started() == (4, 3)
    assert training_spec(images, settings_of(), CPU) == {**one, "processes": 4}


@pytest.mark.parametrize(("count", "index"), [("2", "2"), ("0", "0"), ("two", "0"), ("2", "-1")])
def test_variables_that_make_no_sense_are_refused(monkeypatch, count, index):
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.setenv("RANK", index)
    with pytest.raises(UserError, match="WORLD_SIZE="):
        started()


def test_what_one_process_does_is_refused_in_several(images, tmp_path, monkeypatch, capsys):
    loop = loop_of(images)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("consistency_lab.training.model_kind.shared_device", lambda device: CPU)
    with pytest.raises(UserError, match=r"2 processes were started.*a race is run in one"):
        race([], None, None)
    with pytest.raises(UserError, match="many models are trained in one process"):
        Fleet(images, {}, Store(tmp_path))
    with pytest.raises(UserError, match="a gan is trained in one process"):
        train_gan(images, steps=2, generator="dense", device="cpu")
    with pytest.raises(UserError, match="lock-step are trained in one process"):
        DIFFUSION_KIND.loop(loop.module, images, settings_of(lockstep="1/2"), CPU)
    assert main(["status", "--store", str(tmp_path)]) == 2
    assert "status runs in one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "given", "found"),
    [
        (None, "cuda:3", "cuda:3"),
        ("cuda", "cuda:3", "cuda:3"),
        ("cuda:3", "cuda:3", "cuda:3"),
        ("cuda:1", "cuda:3", None),
        ("cpu", "cuda:3", None),
        ("cpu", "cpu", "cpu"),
        ("cuda", "cpu", None),
    ],
)
def test_each_process_has_the_gpu_that_the_launcher_gives_it(monkeypatch, asked, given, found):
    class State:
        device, num_processes, process_index = torch.device(given), 4, 3

        def __init__(self, cpu):
            assert cpu is (asked == "cpu")

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("accelerate.PartialState", State)
    if found is None:
        with pytest.raises(UserError, match=r"number 3 of 4 .* leave device out"):
            shared_device(asked)
    else:
        assert shared_device(asked) == torch.device(found)
    monkeypatch.setattr(State, "num_processes", 1)
    with pytest.raises(UserError, match="number 3 of 1"):
        shared_device(asked)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"pip install accelerate"):
        shared_device(asked)
    with pytest.raises(UserError, match=r"cannot be used here|accelerate"):
        shared_device("nothing")


def test_a_launcher_without_its_address_is_one_sentence(images, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in (
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
    ):  # accelerate sets some of them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    PartialState._reset_state()  # pipelines of other tests may have made one, of a single process
    try:
        with pytest.raises(UserError, match="2 processes, and they cannot be joined"):
            cl.train(images, settings=settings_of(), device="cpu")
    finally:
        PartialState._reset_state()
