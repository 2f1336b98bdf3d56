"""Real processes, joined by accelerate over gloo: slow, since each of them imports torch. What they do is in `several_processes.py`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several_processes
import torch

import consistency_lab as cl
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory):
    """The folder that some processes have written, and what each of them said. Of three, sums depend on their order."""
    folder = tmp_path_factory.mktemp("several")
    command = [*TORCHRUN, str(request.param), several_processes.__file__, str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return folder, [json.loads((folder / f"said-{rank}.json").read_text()) for rank in range(request.param)]


def tensors(run, name):
    return load_tensors(run.folder / name)[0]


def apart(a, b):
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def log(run):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in run.records()]


def test_several_processes_train_what_one_trains(several, tmp_path):
    folder, said = several
    run = Run.open(said[0]["whole"])
    assert {one["whole"] for one in said} == {said[0]["whole"]}
    assert run.spec["processes"] == len(said)
    alone = cl.train(several_processes.images(), **several_processes.HOW, store=tmp_path)
    one = Run.open(alone.folder)
    for name in ("ema.safetensors", "raw.safetensors", "snapshots/step-0000025.safetensors"):
        assert apart(tensors(run, name), tensors(one, name)) < 1e-5
    for mine, theirs in zip(log(run), log(one), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for rank in range(len(said)):
        assert apart(torch.load(folder / f"unkept-{rank}.pt"), tensors(run, "ema.safetensors")) == 0


def test_a_stopped_run_goes_on_to_the_same_bits_and_on_another_number_is_another_run(several):
    folder, said = several
    assert {one["stopped"] for one in said} == {said[0]["stopped"]}
    assert said[0]["stopped"].startswith("Stopped: training shared stopped at step 31 of 50")
    whole, resumed = (Run.open(said[1][key]) for key in ("whole", "resumed"))
    for name in ("ema.safetensors", "raw.safetensors", "snapshots/step-0000025.safetensors"):
        assert apart(tensors(whole, name), tensors(resumed, name)) == 0
    assert log(whole) == log(resumed)
    alone = cl.train(several_processes.images(), **several_processes.HOW, store=folder / "resumed")
    assert alone.folder != resumed.folder
    assert "processes" not in Run.open(alone.folder).spec


def test_what_is_refused_and_what_works_beside(several):
    folder, said = several
    for one in said:
        assert f"25 images cannot be divided among {len(said)} processes" in one["odd"]
        assert "different things to train" in one["unlike"]
        assert "leave device out" in one["device"]
    assert Run.open(said[0]["vae"]).done
    assert [run.done for run in Store(folder / "vae").runs()] == [True]


def test_ctrl_c_at_the_launcher_saves_once_and_is_said_once(tmp_path):
    options = ["--network", "mlp(width=16, depth=1)", "--steps", "1000000", "--device", "cpu", "--quiet"]
    command = [*ACCELERATE, "-m", "consistency_lab.cli", "train", *options, "--store", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if list(tmp_path.glob("*/metrics.jsonl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.count("stopped at step") == 1
    assert len(list(Path(tmp_path).glob("*/checkpoint.pt"))) == 1
