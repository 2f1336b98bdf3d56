"""Jobs on two Ray nodes of this machine, of which one is ended in mid-run. Each has a disk of its own."""

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import mortal
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.paper.race.parallel_runs import run_all
from consistency_lab.paper.race.running import RaceRun, Watch
from consistency_lab.paper.rows import Rows
from consistency_lab.progress import DONE, Board, posting_to
from consistency_lab.similarity.quality import set_classifier
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.runs import Store
from consistency_lab.studies import fleet
from consistency_lab.studies.fleet import Fleet
from consistency_lab.studies.local_executor import LocalExecutor
from consistency_lab.training.settings import TrainingSettings

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

from ray.cluster_utils import Cluster  # noqa: E402

from consistency_lab.studies.ray_executor import RayExecutor  # noqa: E402

TINY = TrainingSettings(network="mlp(width=8, depth=1)", steps=100, batch=16, snapshots=2)
JOBS = {f"m{seed}": TINY.replace(seed=seed) for seed in range(3)}
CPU = torch.device("cpu")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster of two nodes with one CPU each, and their disks; the first is the driver's."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(each for each in sys.path if each))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token this user has
    monkeypatch.setenv(mortal.TRACE, str(tmp_path / "trace"))
    monkeypatch.setenv(mortal.MARK, str(tmp_path / "mark"))
    made, nodes = Cluster(), []
    for name in ("first", "second"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))  # a node and its workers inherit it
        nodes.append(made.add_node(num_cpus=1, object_store_memory=10**8, include_dashboard=False))
    made.wait_for_nodes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "driver"))
    yield made, nodes
    made.shutdown()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kept(store):
    """The bits of all that the runs of a store kept, and their logs without how long they took."""
    bits, logs = {}, {}
    for run in store.runs():
        assert run.done
        for file in run.folder.rglob("*.safetensors"):
            bits |= {(run.name, file.name, key): x.numpy().tobytes() for key, x in load_tensors(file)[0].items()}
        logs[run.name] = [{**record, "seconds": None} for record in run.records()]
    return bits, logs


def trace():
    """How often each record was written, by whichever process."""
    return Counter(Path(os.environ[mortal.TRACE]).read_text().splitlines())


@pytest.mark.parametrize("shared", [True, False], ids=["url", "folder"])
def test_a_node_that_ends_in_mid_run_loses_nothing(shared, cluster, one_thread, tmp_path, monkeypatch):
    made, (_, second) = cluster
    store = Store(f"file://{tmp_path}/shared" if shared else tmp_path / "shared")
    images, told, ended = load_images("digits"), [], []

    def end_the_second_node():
        """Once the job of either node has stored its state where others find it."""
        while len(stored := list((tmp_path / "shared").glob("*/checkpoint.pt"))) < 2:
            time.sleep(0.02)
        made.remove_node(second, allow_graceful=False)
        ended.extend(stored)
        (tmp_path / "mark").touch()

    monkeypatch.setattr(fleet, "train_job", mortal.train_and_wait)
    threading.Thread(target=end_the_second_node, daemon=True).start()
    jobs = Fleet(images, JOBS, store, executor="ray", address=made.address, say=told.append)
    models = jobs.models(list(JOBS))
    assert len(ended) == 2
    assert [model.name for model in models] == list(JOBS)
    lost = [line.partition(" ")[0] for line in told if "lost its worker" in line]
    assert len(lost) == 1
    assert sorted(line for line in told if "lost" not in line) == [f"trained {name}" for name in JOBS]
    seen = trace()
    again = {line: times for line, times in seen.items() if times > 1}
    assert set(seen) == {f"{name} {step}" for name in JOBS for step in range(25, 101, 25)}
    # What the node had not stored is done again, the rest of its run and every other run once.
    assert {line.partition(" ")[0] for line in again} <= set(lost)
    assert sum(times - 1 for times in again.values()) <= 2
    Fleet(images, JOBS, store, executor="ray", address=made.address).models(list(JOBS))
    assert trace() == seen
    monkeypatch.setattr(fleet, "train_job", mortal.train_job)
    Fleet(images, JOBS, Store(tmp_path / "serial")).models(list(JOBS))
    assert kept(store) == kept(Store(tmp_path / "serial"))


def test_a_race_on_ray_has_the_rows_of_a_serial_one(cluster, one_thread, tmp_path):
    made, _ = cluster
    images, held_out = load_images("digits").split(1500, 297, seed=0)
    judge = set_classifier(load_images("digits"), Store(tmp_path / "judge"), steps=10)
    watch = Watch(images, held_out, judge, batch=32, every=10, count=20)
    base = TINY.replace(steps=30, timesteps="loss_second_moment")
    planned = [RaceRun(f"lr {lr}", base.replace(lr=lr, seed=seed)) for lr in (1e-3, 2e-3) for seed in range(2)]
    found = []
    for name, executor in [("serial", LocalExecutor()), ("ray", RayExecutor(address=made.address))]:
        rows = Rows(tmp_path / f"{name}.jsonl")
        board = Board()
        with posting_to(board):
            run_all(watch, planned, rows, executor)
        # What was shown: every run to its end, with the loss of that step, whether it was trained here or on a node.
        losses = {row["values"]["loss"][-1] for row in rows.finished() if row["spec"]["row"] == "run"}
        assert [job.name for job in board.jobs] == [run.label for run in planned]
        assert {(job.state, job.step) for job in board.jobs} == {(DONE, 30)}
        assert {job.loss for job in board.jobs} == losses
        assert len(rows) == len(planned) * 7  # one of the run, and six evaluations
        found.append({row["key"]: row["values"] for row in rows.finished()})
    assert found[0] == found[1]


def test_what_a_job_raises_and_what_there_is_no_room_for(cluster, monkeypatch):
    made, _ = cluster
    with pytest.raises(UserError, match=r"^the loss is infinite\.$"):
        list(RayExecutor(address=made.address).run(mortal.refuse, {"a": ()}, (), CPU))
    assert trace() == {"asked": 1}
    with pytest.raises(UserError, match="no machine of the Ray cluster has 1 CPUs and 1 GPUs"):
        list(RayExecutor(address=made.address).run(mortal.refuse, {"a": ()}, (), torch.device("cuda")))
    with pytest.raises(UserError, match="says nothing of jobs on the cpu"):
        list(RayExecutor(address=made.address, gpus_per_worker=0.5).run(mortal.refuse, {"a": ()}, (), CPU))
    told = []
    monkeypatch.setattr("consistency_lab.studies.executors.MOST_DEATHS", 1)
    with pytest.raises(UserError, match="lost 2 workers"):
        list(RayExecutor(address=made.address).run(mortal.die, {"a": ()}, (), CPU, told.append))
    assert len(told) == 1
    with pytest.raises(UserError, match="share of a GPU"):
        RayExecutor(gpus_per_worker=1.5)
