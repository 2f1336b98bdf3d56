"""A store on shared storage: each machine works on its own disk, and whatever one of them did is there for the others."""

import threading
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from consistency_lab.cli import main
from consistency_lab.data.sources import load_images
from consistency_lab.errors import StoreError, UserError
from consistency_lab.loading import load
from consistency_lab.store import mirror
from consistency_lab.store.checkpoint import load_tensors
from consistency_lab.store.mirror import Mirror, url_of
from consistency_lab.store.run import ASIDE
from consistency_lab.store.runs import Store
from consistency_lab.store.shared import SharedStore
from consistency_lab.training import run_io
from consistency_lab.training.loop import Descent
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import train

SETTINGS = TrainingSettings(network="mlp(width=8, depth=1)", steps=100, batch=16, snapshots=2)


class Killed(BaseException):
    """Stands for the end of a machine."""


@pytest.fixture
def machine(tmp_path, monkeypatch, request):
    """Give the next machine: a disk of its own, and the same shared storage."""
    url = f"memory://{request.node.name}"
    disks = iter(range(100))

    def next_one():
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"disk-{next(disks)}"))
        return Store(url)

    return next_one


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


def trained(images, store, **options):
    return train(images, settings=SETTINGS, name="m", store=store, device="cpu", progress=False, **options)


def kept(run):
    """The bits of all that a run kept, and its log without how long it took."""
    files = sorted(run.folder.rglob("*.safetensors"))
    bits = {(file.name, key): x.numpy().tobytes() for file in files for key, x in load_tensors(file)[0].items()}
    return bits, [{**record, "seconds": None} for record in run.records()]


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("plain"))
    trained(images, store)
    return kept(store.runs()[0])


def test_a_url_is_told_from_a_path(tmp_path):
    assert [url_of(place) for place in ("runs", "./a:b/c", "C:/runs", tmp_path, 3)] == [None] * 5
    for url in ("s3://bucket/runs", "memory://runs", "file:///tmp/runs"):
        assert url_of(url) == url_of(f"{url}/") == url_of(Path(url)) == url  # a path takes slashes away
    assert type(Store(Path("memory://x"))) is SharedStore
    assert type(Store(tmp_path)) is Store
    with pytest.raises(StoreError, match="no place that fsspec knows"):
        Store("nowhere://x")


def test_what_one_machine_has_trained_another_reads(images, machine, expected):
    first = machine()
    first.check()
    assert first.runs() == []
    model = trained(images, first)
    names = {path.rpartition("/")[2] for path in first._files.find(first._there)}
    assert names == {
        *("spec.json", "done.json", "metrics.jsonl", "ema.safetensors", "raw.safetensors"),
        *("step-0000025.safetensors", "step-0000100.safetensors"),
    }
    second = machine()
    (listed,) = second.runs()
    assert (listed.state, listed.name) == ("done", "m")
    assert not (listed.folder / "ema.safetensors").exists()  # a list fetches no weights
    found = load("m", store=second, device="cpu")
    assert found.folder != model.folder
    assert kept(second.runs()[0]) == expected
    told = []
    assert trained(images, machine(), callback=lambda record: told.append(record["step"])).name == "m"
    assert told == [25, 50, 75, 100]  # from its log: nothing is trained
    with pytest.raises(UserError, match=r"Known in the store memory:.*: m"):
        load("n", store=second)


@pytest.mark.parametrize("puts", [1, 3, 4, 5, 7, 8, 10, 13])
def test_a_run_goes_on_on_another_machine_whenever_the_first_one_dies(puts, images, machine, expected, monkeypatch):
    """The first machine dies when so many files have been sent; it sends at every record, and stores its state then."""
    put, claim, sent, mirrors, steps = Mirror._put, Mirror.claim, [], [], []

    def put_and_die(self, name, file):
        if len(sent) >= puts:
            raise Killed
        before = self._sent.get(name)
        put(self, name, file)
        sent.extend([name] * (self._sent[name] != before))

    with monkeypatch.context() as dying:
        dying.setattr(run_io, "_CHECKPOINT_SECONDS", -1.0)
        dying.setattr(mirror, "_SECONDS", 3600.0)
        dying.setattr(Mirror, "_put", put_and_die)
        dying.setattr(Mirror, "claim", lambda self: (mirrors.append(self), claim(self)))
        with pytest.raises(Killed):
            trained(images, machine(), callback=lambda record: mirrors[-1].send())
    take = Descent.take
    monkeypatch.setattr(Descent, "take", lambda self, loss, step: (steps.append(step), take(self, loss, step)))
    store = machine()
    trained(images, store)
    assert kept(store.runs()[0]) == expected
    # The first checkpoint is sent with the first snapshot, that of another record at the next one, and that of the last with what is final.
    first = {1: 0, 3: 0, 4: 25, 5: 25, 7: 25, 8: 50, 10: 50, 13: 100}
    assert steps == list(range(first[puts], 100)), sent


def test_two_machines_do_not_mix_what_they_send(machine):
    a, b = (machine().run("note", "n", {"x": 1}) for _ in range(2))
    with pytest.raises(StoreError, match="another machine has gone on"), a.begin():
        a.log({"step": 1})
        with b.begin():
            b.log({"step": 2})
            b.finish({"by": "b"})
        a.finish({"by": "a"})
    c = machine().run("note", "n", {"x": 1})
    assert c.done
    assert c.summary == {"by": "b"}
    assert [record["step"] for record in c.records()] == [2]


def test_what_is_logged_is_there_while_it_is_written(machine, monkeypatch, caplog):
    monkeypatch.setattr(mirror, "_SECONDS", 0.01)
    reached, move, fails = threading.Event(), Mirror._move_there, iter([True, True])

    def flaky(self, name, write):
        if next(fails, False):
            raise OSError("no route to host")
        move(self, name, write)
        if name == "metrics.jsonl":
            reached.set()

    monkeypatch.setattr(Mirror, "_move_there", flaky)
    run, other = machine().run("note", "n", {}), machine()
    with run.begin():
        run.log({"step": 1})
        assert reached.wait(20)
        (seen,) = other.runs() or [None]
        assert seen is None or seen.state == "unfinished"
        run.finish({})
    assert other.runs()[0].state == "done"
    assert "no route to host" in caplog.text
    assert caplog.text.count("no route to host") == 1  # a line, not one every few seconds


def test_nothing_is_left_of_a_run_that_wrote_nothing_and_one_that_is_set_aside_is_kept_there(machine):
    store = machine()
    run = store.run("note", "n", {})
    with run.begin():
        pass
    assert store._files.find(store._there) == []
    with run.begin():
        run.finish({})
    assert machine().run("note", "n", {}).done
    finished = sorted(path.rpartition("/")[2] for path in store._files.find(store._there))
    place = run.set_aside()
    assert place.is_dir()
    left = store._files.find(store._there)
    assert sorted(path.rpartition("/")[2] for path in left) == finished
    assert all(f"/set-aside/{place.name}/" in path for path in left)
    again = machine().run("note", "n", {})
    assert not again.done
    with again.begin():
        again.finish({})
    elsewhere = machine().run("note", "n", {})  # of a machine that has no copy
    assert elsewhere.set_aside().is_dir()
    aside = {path.split("/set-aside/")[1].split("/")[0] for path in store._files.find(store._there)}
    assert aside == {place.name, f"{place.name}.2"}
    assert not machine().run("note", "n", {}).done


def test_no_bucket_is_made_by_a_mistyped_name(tmp_path):
    class Buckets(MemoryFileSystem):
        protocol = ("s3", "s3a")

        def makedirs(self, path, exist_ok=False):
            pytest.fail("made a bucket")

    (tmp_path / "spec.json").write_text("{}")
    one = Mirror("s3://bucket/x", Buckets(), "/bucket/x", tmp_path, first="spec.json", growing="log", last="done")
    one.claim()
    one.declare("finished")
    assert one.names() == {"spec.json", "done"}
    one.remove()
    assert one.names() == set()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot reach the shared store file://"):
        Store(f"file://{tmp_path}/file/runs").check()


def test_verify_reads_what_lies_at_the_url_and_not_this_machines_copy(images, machine, capsys):
    store = machine()
    trained(images, store)
    files, folder = MemoryFileSystem(), f"{store._there}/{store.runs()[0].folder.name}"
    assert store.verify() == []
    place = f"{folder}/ema.safetensors"
    content = bytearray(files.cat_file(place))
    content[-9] ^= 1
    files.pipe_file(place, bytes(content))
    files.pipe_file(f"{store._there}/{ASIDE}/old/spec.json", b"{}")
    for each in (store, machine()):  # one that has a whole copy, and one that has none
        wrong, aside = each.verify()
        assert wrong.path == f"{store.url}/{store.runs()[0].folder.name}/ema.safetensors"
        assert wrong.wrong
        assert "checksum does not fit" in wrong.what
        assert (aside.path, aside.wrong) == (f"{store.url}/{ASIDE}/old", False)
    assert main(["verify", str(Path(store.url))]) == 1  # pathlib takes one of its slashes
    assert f"WRONG  {wrong.path}" in capsys.readouterr().out
