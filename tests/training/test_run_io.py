import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from consistency_lab.cli import main
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.errors import StoreError
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.runs import Store
from consistency_lab.training import run_io
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.stopping import Stopped, stop_between_steps
from consistency_lab.training.train import build_denoiser, load_model, load_snapshots, train, training_spec

TINY = {"network": "mlp(width=16, depth=1)", "steps": 60, "batch": 32, "device": "cpu", "progress": False}
CPU = torch.device("cpu")
ORIGINAL = TrainingLoop._advance


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """Where the tests run in the background, a shell may have had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(200), "some digits")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return train(images, **TINY, store=tmp_path_factory.mktemp("whole"))


def interrupt(monkeypatch, at, how):
    def advance(loop):
        if loop.step == at:
            how()
        return ORIGINAL(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", advance)


def same(a, b):
    (x, y), (logs_a, logs_b) = (
        [m.denoiser.state_dict() for m in (a, b)],
        [[(r["step"], r["loss"]) for r in Store(m.folder.parent).runs()[0].records()] for m in (a, b)],
    )
    steps = [[(step, snapshot.denoiser.state_dict()) for step, snapshot in load_snapshots(m)] for m in (a, b)]
    return (
        logs_a == logs_b
        and all(torch.equal(x[key], y[key]) for key in x)
        and [step for step, _ in steps[0]] == [step for step, _ in steps[1]]
        and all(torch.equal(u[key], v[key]) for (_, u), (_, v) in zip(*steps, strict=True) for key in u)
    )


@pytest.mark.parametrize("at", [0, 24, 36, 58])
def test_ctrl_c_ends_the_step_and_saves_it_and_the_resume_gives_the_same_bits(images, whole, tmp_path, monkeypatch, at):
    interrupt(monkeypatch, at, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped, match=f"stopped at step {at + 1} of 60; the same command resumes"):
        train(images, **TINY, store=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (run,) = Store(tmp_path).runs()
    assert run_io.load_state(run.folder / "checkpoint.pt")["loop"]["step"] == at + 1
    monkeypatch.undo()
    assert same(whole, train(images, **TINY, store=tmp_path))


def test_ctrl_c_in_the_last_step_keeps_the_finished_run(images, whole, tmp_path, monkeypatch):
    interrupt(monkeypatch, 59, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped, match="what was finished is kept"):
        train(images, **TINY, store=tmp_path)
    (run,) = Store(tmp_path).runs()
    assert run.done
    assert same(whole, load_model(run))


def test_an_interrupt_inside_a_step_saves_no_torn_state_and_the_resume_gives_the_same_bits(
    images, whole, tmp_path, monkeypatch
):
    def fail():
        raise KeyboardInterrupt

    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    interrupt(monkeypatch, 55, fail)
    with pytest.raises(KeyboardInterrupt):
        train(images, **TINY, store=tmp_path)
    (run,) = Store(tmp_path).runs()
    assert run_io.load_state(run.folder / "checkpoint.pt")["loop"]["step"] == 50
    monkeypatch.undo()
    assert same(whole, train(images, **TINY, store=tmp_path))


def test_snapshots_beyond_the_checkpoint_are_removed_when_a_run_goes_on(images, tmp_path, monkeypatch):
    interrupt(monkeypatch, 55, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped):
        train(images, **TINY, store=tmp_path)
    (run,) = Store(tmp_path).runs()
    (run.folder / "snapshots" / "step-0000057.safetensors").write_bytes(b"of a run that was killed later")
    seen = []
    interrupt(monkeypatch, 56, lambda: seen.extend(sorted(p.name for p in (run.folder / "snapshots").iterdir())))
    train(images, **TINY, store=tmp_path)
    assert seen == ["step-0000025.safetensors", "step-0000050.safetensors"]


def test_a_second_ctrl_c_does_not_wait_and_threads_and_own_handlers_are_left_alone():
    with pytest.raises(KeyboardInterrupt) as stopped, stop_between_steps():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(stopped.value, Stopped)
    entered = []

    def elsewhere():
        with stop_between_steps() as check:
            entered.append(check())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert entered == [None]
    mine = signal.signal(signal.SIGINT, lambda *_: entered.append("mine"))
    try:
        with stop_between_steps() as check:
            signal.raise_signal(signal.SIGINT)
            check()
        assert entered[-1] == "mine"
    finally:
        signal.signal(signal.SIGINT, mine)


def test_ctrl_c_on_the_command_line_is_one_line_and_status_130(tmp_path):
    command = [sys.executable, "-m", "consistency_lab.cli", "train", "--network", TINY["network"], "--quiet"]
    options = ["--steps", "1000000", "--device", "cpu", "--store", str(tmp_path)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if list(tmp_path.glob("*/metrics.jsonl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(said.strip().splitlines()) == 1
    assert "stopped at step" in said
    assert list(tmp_path.glob("*/checkpoint.pt"))


@pytest.mark.parametrize("file", ["ema.safetensors", "raw.safetensors"])
def test_a_finished_run_whose_weights_are_damaged_is_trained_again(images, whole, tmp_path, file, caplog):
    folder = train(images, **TINY, store=tmp_path).folder
    before = {
        key: tensor.clone() for key, tensor in load_tensors(folder / file)[0].items()
    }  # the file itself is mapped
    (folder / file).write_bytes((folder / file).read_bytes()[:200])
    if file.startswith("ema"):
        with pytest.raises(StoreError, match=r"ema.safetensors is truncated.*train mlp-s0 again"):
            load_model(folder)
    assert same(whole, train(images, **TINY, store=tmp_path))
    assert "Training mlp-s0 again" in caplog.text
    after = load_tensors(folder / file)[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_was_damaged_is_set_aside_with_what_a_user_has_put_there(images, whole, tmp_path, caplog):
    folder = train(images, **TINY, store=tmp_path).folder
    (folder / "notes.txt").write_text("mine")
    content = bytearray((folder / "ema.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "ema.safetensors").unlink()
    (folder / "ema.safetensors").write_bytes(content)
    assert same(whole, train(images, **TINY, store=tmp_path))
    (aside,) = Store(tmp_path).set_aside()
    assert f"What there was of mlp-s0 lies in {aside} now" in caplog.text
    assert (aside / "notes.txt").read_text() == "mine"
    assert (aside / "ema.safetensors").read_bytes() == content
    assert len(list((aside / "snapshots").iterdir())) == len(list((folder / "snapshots").iterdir()))
    train(images, **TINY, store=tmp_path, force=True)
    assert len(Store(tmp_path).set_aside()) == 2


def test_weights_that_cannot_be_read_end_the_training_and_are_left_alone(images, tmp_path):
    folder = train(images, **TINY, store=tmp_path).folder
    (folder / "ema.safetensors").rename(folder / "kept")
    (folder / "ema.safetensors").symlink_to("/proc/self/mem")  # of which every read is an I/O error
    if not (folder / "ema.safetensors").exists():
        pytest.skip("this system has no such file")
    with pytest.raises(StoreError, match=r"cannot read .*nothing was changed"):
        train(images, **TINY, store=tmp_path)
    assert Store(tmp_path).set_aside() == []
    assert (folder / "raw.safetensors").is_file()


@pytest.mark.parametrize("left", ["ema.safetensors", "snapshots"])
def test_weights_without_what_they_could_be_made_from_need_force(images, whole, tmp_path, left):
    folder = train(images, **TINY, store=tmp_path).folder
    for path in folder.iterdir():
        if path.name not in ("spec.json", left):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match=r"neither its done.json nor the checkpoint.pt .*--force"):
        train(images, **TINY, store=tmp_path)
    assert (folder / left).exists()
    assert same(whole, train(images, **TINY, store=tmp_path, force=True))
    assert (Store(tmp_path).set_aside()[0] / left).exists()


def killed_before(monkeypatch, what, images, store):
    """Train until a file is to be written, and no further."""
    ordinary = run_io.save_run_tensors

    def save(run, name, *args):
        if name.startswith(what):
            raise KeyboardInterrupt
        return ordinary(run, name, *args)

    monkeypatch.setattr(run_io, "save_run_tensors", save)
    with pytest.raises(KeyboardInterrupt):
        train(images, **TINY, store=store)
    monkeypatch.undo()


@pytest.mark.parametrize("what", ["snapshots/step-0000025", "snapshots/step-0000060", "ema", "raw"])
def test_a_run_that_is_killed_between_any_two_files_goes_on_without_force(images, whole, tmp_path, monkeypatch, what):
    killed_before(monkeypatch, what, images, tmp_path)
    assert same(whole, train(images, **TINY, store=tmp_path))
    assert Store(tmp_path).set_aside() == []


def test_a_log_that_lost_its_end_is_named_when_the_run_goes_on(images, tmp_path, monkeypatch, caplog):
    interrupt(monkeypatch, 55, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped):
        train(images, **TINY, store=tmp_path)
    monkeypatch.undo()
    (run,) = Store(tmp_path).runs()
    (run.folder / "metrics.jsonl").write_bytes((run.folder / "metrics.jsonl").read_bytes()[:-40])
    train(images, **TINY, store=tmp_path)
    assert "the log of mlp-s0 lacks 1 lines of its steps before 56; its curve has a gap." in caplog.text
    assert [record["step"] for record in run.records()] == [25, 60]


def test_weights_of_another_run_or_another_step_are_refused(images, whole, tmp_path):
    a, b = (train(images, **{**TINY, "seed": seed}, store=tmp_path).folder for seed in range(2))
    (a / "ema.safetensors").write_bytes((b / "ema.safetensors").read_bytes())
    with pytest.raises(StoreError, match=r"ema\.safetensors is of another run; train mlp-s0 again"):
        load_model(a)
    first, second = sorted((b / "snapshots").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(StoreError, match=f"{first.name} was written as snapshots/{second.name}"):
        list(load_snapshots(load_model(b)))


def test_a_checkpoint_of_another_run_is_refused(images, tmp_path, monkeypatch):
    interrupt(monkeypatch, 30, lambda: signal.raise_signal(signal.SIGINT))
    for seed in range(2):
        with pytest.raises(Stopped):
            train(images, **{**TINY, "seed": seed}, store=tmp_path)
    monkeypatch.undo()
    a, b = (run.folder / "checkpoint.pt" for run in Store(tmp_path).runs())
    a.write_bytes(b.read_bytes())
    with pytest.raises(StoreError, match=r"checkpoint\.pt is of another run"):
        train(images, **TINY, store=tmp_path)
        train(images, **{**TINY, "seed": 1}, store=tmp_path)


def test_a_run_that_another_process_trains_is_waited_for_with_a_line_that_says_so(images, whole, tmp_path, caplog):
    def begin(record):
        """In the first process, which trains on when the second says that it waits."""
        if record["step"] == 25:
            second.start()
            for _ in range(1000):
                if "waiting for the process that holds the run" in caplog.text:
                    return
                time.sleep(0.01)
            raise AssertionError("nothing was said")

    found = []
    second = threading.Thread(target=lambda: found.append(train(images, **TINY, store=tmp_path)))
    first = train(images, **TINY, store=tmp_path, callback=begin)
    second.join()
    assert same(whole, first)
    assert same(whole, found[0])
    assert len(Store(tmp_path).runs()) == 1


def test_an_interrupt_elsewhere_is_one_line_too(monkeypatch, capsys):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("consistency_lab.cli.listing.Status.run", stop)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "consistency-lab: stopped.\n"


def test_a_run_on_another_number_of_processes_says_that_it_begins_beside_an_unfinished_one(
    images, tmp_path, monkeypatch, caplog
):
    store = Store(tmp_path)

    def steps(**changed):
        """A training in the store up to its first step, with more in its spec than one process says."""
        settings = TrainingSettings(**{key: TINY[key] for key in ("network", "steps", "batch")})
        spec = training_spec(images, settings, CPU)
        loop = TrainingLoop(
            build_denoiser(spec), denoising_loss, DenoisingBatches(images, settings, CPU), settings, CPU
        )
        caplog.clear()
        run = run_io.steps_in_store(store, "model", "m", {**spec, **changed}, loop, check=lambda: None)
        next(run)
        with pytest.raises(Stopped):
            run.throw(Stopped("stopped"))
        return [each.message for each in caplog.records]

    interrupt(monkeypatch, 24, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped):
        train(images, **TINY, store=store)
    monkeypatch.undo()
    (said,) = steps(processes=2)
    (first,) = [run for run in store.runs() if "processes" not in run.spec]
    assert said == (
        f"{first.name} is unfinished in {first.folder}, where 1 process trained it; on 2 it is another run, which begins at step 0."
    )
    assert not steps(processes=2)  # it is begun: it goes on
    assert not steps(dtype="float64", processes=2)  # another run altogether
    train(images, **TINY, store=store)
    (said,) = steps(processes=3)
    assert "where 2 processes trained it; on 3" in said
