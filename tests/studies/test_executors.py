"""Jobs in processes that may die, and where each is placed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import mortal
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.progress import DONE, WAITING, Board, posting_to
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.runs import Store
from consistency_lab.studies import executors, fleet
from consistency_lab.studies.executors import executor_of
from consistency_lab.studies.fleet import Fleet
from consistency_lab.studies.local_executor import LocalExecutor, place_of
from consistency_lab.training.settings import TrainingSettings

CPU = torch.device("cpu")
TINY = TrainingSettings(network="mlp(width=8, depth=1)", steps=100, batch=16, snapshots=2)
JOBS = {f"m{seed}": TINY.replace(seed=seed) for seed in range(2)}


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """The file in which workers note what they do."""
    monkeypatch.setenv(mortal.TRACE, str(tmp_path / "trace"))
    monkeypatch.setenv(mortal.MARK, str(tmp_path / "mark"))
    return tmp_path / "trace"


def weights(store):
    """The bits of everything that the runs of a store have kept."""
    found = {}
    for run in store.runs():
        for file in run.folder.rglob("*.safetensors"):
            for key, value in load_tensors(file)[0].items():
                found[run.name, file.name, key] = value.numpy().tobytes()
    return found


def logs(store):
    """What was logged, without how long it took."""
    return {run.name: [{**record, "seconds": None} for record in run.records()] for run in store.runs()}


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_trained_twice(tmp_path, monkeypatch, trace):
    images, told = load_images("digits"), []
    monkeypatch.setattr(fleet, "train_job", mortal.train_and_die_once)
    board = Board()
    with posting_to(board):  # what is shown is of the processes, and changes nothing that is compared below
        mended = Fleet(images, JOBS, Store(tmp_path / "mended"), workers=2, say=told.append)
        assert [(job.name, job.state, job.steps) for job in board.jobs] == [(name, WAITING, 100) for name in JOBS]
        mended.models(list(JOBS))
    last = {name: mended.runs[name].records()[-1]["loss"] for name in JOBS}
    assert [(job.name, job.state, job.step, job.loss) for job in board.jobs] == [
        (name, DONE, 100, pytest.approx(last[name])) for name in JOBS
    ]
    assert [line for line in told if "lost its worker (killed, or out of memory)" in line] == [told[0]]
    assert sorted(told[1:]) == ["trained m0", "trained m1"]
    assert set(Counter(trace.read_text().splitlines()).values()) == {1}  # each record by one process alone
    assert len(trace.read_text().splitlines()) == 2 * TINY.steps / mortal.EVERY
    monkeypatch.setattr(fleet, "train_job", mortal.train_job)
    before = torch.get_num_threads()
    torch.set_num_threads(mended.executor.threads(CPU))
    Fleet(images, JOBS, Store(tmp_path / "serial")).models(list(JOBS))
    torch.set_num_threads(before)
    assert weights(Store(tmp_path / "mended")) == weights(Store(tmp_path / "serial"))
    assert logs(Store(tmp_path / "mended")) == logs(Store(tmp_path / "serial"))


@pytest.mark.slow
def test_a_job_that_raises_is_not_repeated_and_one_that_always_dies_is_given_up(monkeypatch, trace):
    jobs, told = {"a": (), "b": ()}, []
    with pytest.raises(UserError, match=r"^the loss is infinite\.$"):
        list(LocalExecutor(2).run(mortal.refuse, jobs, (), CPU))
    assert 1 <= len(trace.read_text().splitlines()) <= 2  # once each at most
    monkeypatch.setattr(executors, "MOST_DEATHS", 1)
    with pytest.raises(UserError, match="lost 2 workers"):
        list(LocalExecutor(2).run(mortal.die, jobs, (), CPU, told.append))
    assert 1 <= len(told) <= 2


@pytest.mark.slow
def test_workers_share_threads_and_do_one_job_after_another():
    jobs = {str(number): (number,) for number in range(5)}
    found = dict(LocalExecutor(2).run(mortal.square, jobs, (10,), CPU))
    assert {name: each[0] for name, each in found.items()} == {str(n): 10 + n**2 for n in range(5)}
    assert os.getpid() not in {each[1] for each in found.values()}
    assert len({each[1] for each in found.values()}) <= 2
    assert {each[2:] for each in found.values()} == {(max(1, os.cpu_count() // 2), "cpu")}


@pytest.mark.parametrize(("workers", "jobs"), [(1, 3), (None, 3), (4, 1)])
def test_one_at_a_time_needs_no_process(workers, jobs):
    found = list(LocalExecutor(workers).run(mortal.square, {str(n): (n,) for n in range(jobs)}, (0,), CPU))
    assert [name for name, _ in found] == [str(n) for n in range(jobs)]
    assert {each[1:] for _, each in found} == {(os.getpid(), torch.get_num_threads(), "cpu")}


def test_each_worker_has_a_gpu_of_its_own_while_there_are_enough(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    gpus, cpus = torch.device("cuda"), os.cpu_count()
    assert [str(place_of(k, gpus)) for k in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert {str(place_of(k, torch.device("cuda:1"))) for k in range(3)} == {"cuda:1"}
    assert str(place_of(2, CPU)) == "cpu"
    # By default as many workers as GPUs; a named one has one.
    alone = {place: LocalExecutor().here(8, torch.device(place)) for place in ("cuda", "cuda:1", "cpu")}
    assert alone == {"cuda": False, "cuda:1": True, "cpu": True}
    assert LocalExecutor().threads(gpus) == max(1, cpus // 3)
    assert LocalExecutor(6).threads(gpus) == max(1, cpus // 6)


def test_what_is_no_executor_is_refused():
    for call, message in [
        (lambda: executor_of("slurm"), "one of local, ray, not 'slurm'"),
        (lambda: executor_of(workers=0), "at least one worker, not 0"),
        (lambda: executor_of("local", 2, "auto"), "of executor='ray'"),
        (lambda: executor_of(gpus_per_worker=0.5), "of executor='ray'"),
        (lambda: executor_of(LocalExecutor(2), 2), "there already"),
    ]:
        with pytest.raises(UserError, match=message):
            call()


def test_without_ray_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install ray"):
        executor_of("ray")


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import mortal, torch\nfrom consistency_lab.studies.local_executor import LocalExecutor\n"
        f"if __name__ == '__main__':\n    jobs = {{'a': ('a',), 'b': ('b',)}}\n"
        f"    list(LocalExecutor(2).run(mortal.linger, jobs, ({str(tmp_path)!r},), torch.device('cpu')))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    path = os.pathsep.join(each for each in sys.path if each)
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path})
    marks = [tmp_path / "a.pid", tmp_path / "b.pid"]
    wait_for(lambda: all(mark.exists() for mark in marks))
    pids = [int(mark.read_text()) for mark in marks]
    assert all(lives(pid) for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not any(lives(pid) for pid in pids))  # long before their two minutes are over


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it did not come to pass in a minute")


def lives(pid):
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


def test_two_names_of_one_spec_are_one_model(tmp_path):
    """As where one stream of random numbers varies: the first of them is the plain model, by another name."""
    images = load_images("digits")
    small = TrainingSettings(network="mlp(width=8, depth=1)", steps=4, batch=16, snapshots=0)
    jobs = {"all-0": small, "all-1": small.replace(seed=1), "start-0": small.replace(init_seed=0), "again-0": small}
    trained = []
    fleet = Fleet(images, jobs, tmp_path, say=trained.append)
    first = fleet.models(["all-0", "all-1"])
    assert len(list(tmp_path.glob("model-*"))) == 2
    second = fleet.models(["start-0", "again-0"])  # known to the fleet before the first was trained
    assert [model.name for model in second] == ["start-0", "again-0"]
    for model in second:
        for own, known in zip(model.denoiser.parameters(), first[0].denoiser.parameters(), strict=True):
            assert torch.equal(own, known)
    both = Fleet(images, jobs, tmp_path / "at once", workers=2, say=trained.append)
    assert [model.name for model in both.models(list(jobs))] == list(jobs)
    assert len(list((tmp_path / "at once").glob("model-*"))) == 2
