"""Where things are computed."""

import contextlib
import ctypes
import queue
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch

import consistency_lab as cl
from consistency_lab.devices import evaluating_in, machine_name, measuring, sent, training_in, while_running
from consistency_lab.probes import handoff
from consistency_lab.training.loop import Descent


@pytest.mark.skipif(not hasattr(ctypes.pythonapi, "mallinfo2"), reason="what is kept is glibc's to say, from 2.33 on")
def test_what_is_freed_is_kept_for_the_next_tensors():
    # Asked of the C library itself: how many pages are mapped anew depends on what chance has put above the blocks.
    code = (
        "import ctypes, torch\n"
        "from consistency_lab.devices import keep_freed\n"
        "class Told(ctypes.Structure):\n"
        "    names = 'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks free top'.split()\n"
        "    _fields_ = list(zip(names, [ctypes.c_size_t] * 10))\n"
        "told = ctypes.pythonapi.mallinfo2\n"
        "told.restype = Told\n"
        "def kept(megabytes):\n"
        "    before = told().free\n"
        "    torch.empty(megabytes * 2**20, dtype=torch.uint8)\n"
        "    return told().free - before\n"
        "handed_back = kept(8)\n"
        "keep_freed()\n"
        "print(handed_back, kept(16))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    handed_back, kept = map(int, done.stdout.split())
    assert handed_back < 2**20
    assert kept > 15 * 2**20  # twice a block that without it would be handed back, as the first was


NEWER = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.9 and later")

# What a caller may have written, in this order, in either of torch's two interfaces.
SETTINGS = [
    "pass",
    "on.cuda.matmul.allow_tf32 = True",
    "on.cudnn.allow_tf32 = False",
    "torch.set_float32_matmul_precision('medium')",
    pytest.param("on.fp32_precision = 'tf32'", marks=NEWER),
    pytest.param("on.fp32_precision = 'tf32'; on.cudnn.allow_tf32 = False", marks=NEWER),
    pytest.param("on.cuda.matmul.allow_tf32 = True; on.fp32_precision = 'tf32'", marks=NEWER),
    pytest.param("on.cuda.matmul.fp32_precision = on.cudnn.fp32_precision = 'tf32'", marks=NEWER),
    pytest.param("on.cudnn.fp32_precision = 'ieee'; on.mkldnn.matmul.fp32_precision = 'bf16'", marks=NEWER),
]


def precisions() -> dict[str, object]:
    """All that can be read of them in both interfaces, None where torch raises."""
    on = torch.backends
    reads = {
        "cudnn.allow_tf32": lambda: on.cudnn.allow_tf32,
        "matmul.allow_tf32": lambda: on.cuda.matmul.allow_tf32,
        "word": torch.get_float32_matmul_precision,
    }
    if hasattr(on, "fp32_precision"):
        reads |= {name: partial(getattr, at, "fp32_precision") for name, at in newer().items()}
    found = {}
    for name, read in reads.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = None
    return found


def newer() -> dict[str, object]:
    on = torch.backends
    below = {f"mkldnn.{name}": getattr(on.mkldnn, name) for name in ("matmul", "conv", "rnn")}
    return {"all": on, "cudnn": on.cudnn, "matmul": on.cuda.matmul, "conv": on.cudnn.conv, "rnn": on.cudnn.rnn, **below}


@pytest.fixture
def as_torch_starts():
    yield
    if hasattr(torch.backends, "fp32_precision"):
        for at in newer().values():
            at.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    if hasattr(torch.backends, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.parametrize("setting", SETTINGS)
def test_measuring_is_full_float32_and_puts_back_what_was_set(setting, as_torch_starts):
    exec(setting, {"torch": torch, "on": torch.backends})
    before = precisions()
    with measuring(), measuring():
        inside = precisions()
        assert torch.backends.cudnn.deterministic
    assert not REDUCED & set(inside.values())
    # Where the older interface could be read, it still can be: torch.compile reads it.
    assert all(inside[name] is not None for name in ("cudnn.allow_tf32", "word") if before[name] is not None)
    assert precisions() == before
    assert not torch.backends.cudnn.deterministic


@NEWER
def test_a_precision_set_after_measuring_reaches_what_was_never_set(as_torch_starts):
    with measuring():
        pass
    torch.backends.fp32_precision = "tf32"
    after = precisions()
    assert {after[name] for name in newer()} == {"tf32"}


def test_a_sampler_and_a_course_held_open_leave_the_callers_settings_alone(monkeypatch):
    images = cl.load_images("digits")
    model = cl.train(images, seed=0, network="mlp(width=16, depth=1)", steps=2, batch=8, device="cpu")
    within = []
    forward = type(model.denoiser).forward
    monkeypatch.setattr(
        type(model.denoiser),
        "forward",
        lambda *given: within.append(torch.backends.cudnn.deterministic) or forward(*given),
    )
    sampler = cl.Sampler(steps=3)
    noise = torch.zeros(1, *model.noise_shape)
    walks = [
        model.path(cl.SharedNoise(0), [0], sampler),
        handoff._steps(model, noise.double(), sampler, model.denoiser.schedule.grid(3), [0]),
    ]
    before = precisions()
    for walk in walks:
        next(walk)
        assert precisions() == before
        assert not torch.backends.cudnn.deterministic
        list(walk)
    assert within == [True] * len(within)
    assert within


def test_what_is_raised_while_running_passes_and_leaves_the_context():
    def steps():
        yield torch.backends.cudnn.deterministic
        raise ValueError("in the second step")

    walk = while_running(measuring, steps())
    assert next(walk)
    with pytest.raises(ValueError, match="second"):
        next(walk)
    assert not torch.backends.cudnn.deterministic


def test_what_is_sent_to_a_gpu_goes_by_page_locked_memory(monkeypatch):
    """There is none here: what torch is asked for is looked at."""
    asked, x = [], torch.arange(3.0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: asked.append("pinned") or x)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, device, non_blocking: asked.append((str(device), non_blocking)) or x
    )
    for device in ("cuda:0", "cpu", "mps"):
        assert torch.equal(sent(x, device), x)
    assert asked == ["pinned", ("cuda:0", True), ("cpu", True), ("mps", True)]


def test_what_comes_from_a_device_is_waited_for(monkeypatch):
    asked, x = [], torch.empty(3, device="meta")
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, non_blocking: asked.append(non_blocking) or x)
    sent(x, "cpu")
    assert asked == [False]


OFF = {"cudnn.allow_tf32": False, "matmul.allow_tf32": False, "word": "highest"}
ON = ("cudnn.allow_tf32", "matmul.allow_tf32", "matmul", "conv")  # of what is there, all that can be read


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "tf32"])
def test_a_training_step_is_in_the_precision_of_its_settings_and_puts_back_what_was_set(
    setting, precision, as_torch_starts
):
    exec(setting, {"torch": torch, "on": torch.backends})
    before = precisions()
    with training_in(precision):
        inside = precisions()
        assert torch.backends.cudnn.deterministic
    used = {inside[name] for name in ON if inside.get(name) is not None}
    assert used <= ({True, "tf32"} if precision == "tf32" else {False, "ieee"})
    assert len(used) in (1, 2)
    if precision != "tf32":
        assert all(inside[name] in (None, off) for name, off in OFF.items())
    assert precisions() == before
    assert not torch.backends.cudnn.deterministic


def test_tf32_of_a_sampler_is_inside_measuring_and_leaves_it_as_it_was():
    with measuring():
        before = precisions()
        with evaluating_in("tf32", torch.device("cuda")):
            assert torch.backends.cudnn.allow_tf32
            assert torch.backends.cuda.matmul.allow_tf32
        assert precisions() == before


def test_what_a_caller_has_set_does_not_train_another_model(as_torch_starts, monkeypatch):
    """Of the flags a GPU would see, those that each step sees; between steps they are the caller's."""
    seen, images = [], cl.load_images("digits")
    take = Descent.take
    monkeypatch.setattr(Descent, "take", lambda *given: seen.append(precisions()) or take(*given))
    torch.set_float32_matmul_precision("medium")
    before = precisions()
    outside = []
    told = {"network": "mlp(width=16, depth=1)", "batch": 8, "device": "cpu", "steps": 25}
    cl.train(images, **told, callback=lambda record: outside.append(precisions()))
    cl.train_vae(images, steps=1, batch=8, device="cpu")
    assert len(seen) == 26
    assert all(each["word"] == "highest" and each["cudnn.allow_tf32"] is False for each in seen)
    assert outside == [before]


def test_there_is_no_tf32_on_the_cpu():
    images = cl.load_images("digits")
    told = {"network": "mlp(width=16, depth=1)", "steps": 1, "batch": 8, "device": "cpu"}
    with pytest.raises(cl.UserError, match="'tf32' is of NVIDIA GPUs"):
        cl.train(images, precision="tf32", **told)
    model = cl.train(images, **told)
    with pytest.raises(cl.UserError, match="'tf32' is of NVIDIA GPUs"):
        model.generate(cl.SharedNoise(0), [0], "ddim(steps=1, precision='tf32')")


REDUCED = {True, "tf32", "bf16", "high", "medium"}


class Turns:
    """A thread that enters and leaves blocks as it is told, and whether anything was below full float32 after each."""

    def __init__(self):
        self.told, self.done = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        stack = contextlib.ExitStack()
        while (context := self.told.get()) is not None:
            with contextlib.ExitStack() as left:
                if context == "leave":
                    left.push(stack.pop_all())
                else:
                    stack.enter_context(context)
            self.done.put(bool(REDUCED & set(precisions().values())))

    def begin(self, context):
        self.told.put(context)

    def seen(self):
        return self.done.get(timeout=20)

    def do(self, context):
        self.begin(context)
        return self.seen()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("first", [0, 1])
def test_threads_that_overlap_put_back_what_was_set_when_the_last_is_done(setting, first, as_torch_starts):
    exec(setting, {"on": torch.backends, "torch": torch})
    before, threads = precisions(), (Turns(), Turns())
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        assert threads[0].do(measuring()) is False
        assert threads[1].do(training_in("float32")) is False
        threads[first].do("leave")
        assert torch.backends.cudnn.deterministic
        assert not REDUCED & set(precisions().values())
        threads[1 - first].do("leave")
    finally:
        for thread in threads:
            thread.begin(None)
    assert precisions() == before
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == flags


def test_threads_of_other_precisions_take_turns(as_torch_starts):
    measure, train, other = Turns(), Turns(), Turns()
    try:
        assert measure.do(measuring()) is False
        train.begin(training_in("tf32"))
        other.begin(training_in("tf32"))
        assert not torch.backends.cuda.matmul.allow_tf32
        assert train.done.empty()
        # What is measured comes to want TF32 itself: all three are at work.
        assert measure.do(evaluating_in("tf32", torch.device("meta"))) is True
        assert (train.seen(), other.seen()) == (True, True)
        assert torch.backends.cuda.matmul.allow_tf32
        other.do("leave")
        train.do("leave")
        assert torch.backends.cuda.matmul.allow_tf32
        measure.do("leave")
    finally:
        for thread in (measure, train, other):
            thread.begin(None)
    assert not torch.backends.cudnn.deterministic


def test_generators_left_in_any_order_put_back_what_was_set(as_torch_starts):
    def held(context):
        with context:
            yield

    before = precisions()
    for precision in ("float32", "tf32"):
        walks = [held(measuring()), held(training_in(precision)), held(measuring())]
        for walk in walks:
            next(walk)
        walks[0].close()
        ended = threading.Thread(target=walks[1].close)  # as the collector of another thread may
        ended.start()
        ended.join()
        assert torch.backends.cudnn.deterministic
        walks[2].close()
        assert precisions() == before
        assert not torch.backends.cudnn.deterministic


def test_a_machine_is_named_with_its_threads():
    name, threads = machine_name(torch.device("cpu")).rsplit(", threads: ", 1)
    assert name
    assert int(threads) == torch.get_num_threads()
