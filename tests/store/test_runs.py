import errno
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.results import save_result
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store

SPEC = {"network": "unet(width=32)", "steps": 1500}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def finished(store, name="a", kind="model", **spec):
    run = store.run(kind, name, spec)
    with run.begin():
        run.finish({"name": name})
    return run


def other_numerics(monkeypatch, version=99):
    for module in ("run", "runs"):
        monkeypatch.setattr(f"consistency_lab.store.{module}.NUMERICS_VERSION", version)


def test_another_spec_or_kind_is_another_folder_and_another_name_is_not(store):
    run = finished(store, "a", seed=0)
    assert store.run("model", "b", {"seed": 0}).folder == run.folder
    assert store.run("model", "b", {"seed": 0}).name == "a"
    assert not store.run("model", "a", {"seed": 1}).done
    assert not store.run("gan", "a", {"seed": 0}).done


@pytest.mark.parametrize("name", ["../up", "a/b\\c", "", "...", "unet(width=32, depth=2) | näh\n", "x" * 400, "CON:"])
def test_any_name_makes_a_plain_folder_inside_the_root(store, name):
    run = finished(store, name)
    assert run.folder.parent == store.root
    assert run.folder.is_dir()
    assert set(run.folder.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert store.find(name or run.folder.name).name == name


def test_an_unwritable_root_is_one_sentence_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "runs")

    def compute():
        raise AssertionError("work was done")

    for attempt in (store.check, lambda: store.result("comparison", "c", {}, compute)):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert str(store.root) in str(caught.value)
    assert store.runs() == []


@pytest.mark.parametrize("text", ["", '{"kind": "mod', "[1]", '{"name": "another project"}', "\x00"])
def test_a_damaged_spec_is_named_and_the_others_are_still_listed(store, text):
    good, bad = finished(store, "good", seed=0), finished(store, "bad", seed=1)
    (bad.folder / "spec.json").write_text(text)
    with pytest.raises(StoreError, match=r"spec\.json"):
        store.run("model", "bad", {"seed": 1})
    assert [run.folder for run in store.runs()] == [good.folder]


def test_an_edited_spec_is_an_error(store):
    run = finished(store, steps=100)
    path = run.folder / "spec.json"
    path.write_text(path.read_text().replace("100", "200"))
    with pytest.raises(StoreError, match="was changed after"):
        store.run("model", "a", {"steps": 100})


def test_another_spec_in_the_folder_is_an_error(store):
    one, other = finished(store, seed=0), finished(store, seed=1)
    (one.folder / "spec.json").write_bytes((other.folder / "spec.json").read_bytes())
    with pytest.raises(StoreError, match="another spec"):
        store.run("model", "a", {"seed": 0})


def test_runs_of_other_numerics_are_listed_as_stale_and_never_used(store, monkeypatch):
    old = finished(store, seed=0)
    other_numerics(monkeypatch)
    assert [run.stale for run in store.runs()] == [True]
    assert not store.run("model", "a", {"seed": 0}).done
    for text in ("a", old.folder):
        with pytest.raises(StoreError, match="is stale"):
            store.find(text)
        assert store.find(text, stale=True).folder == old.folder
    with pytest.raises(StoreError, match="numerics version"), Run.open(old.folder).begin():
        pass
    new = finished(store, seed=0)
    assert store.find("a").folder == new.folder
    assert sorted(run.stale for run in store.runs()) == [False, True]


def test_find_by_path_folder_name_and_beginning(store, monkeypatch):
    a, b = finished(store, "unet", seed=0), finished(store, "unet-large", seed=1)
    c = finished(store, "unet", "comparison")
    for text in (a.folder, str(a.folder), a.folder.name, a.folder.name[:-2]):
        assert store.find(text).folder == a.folder
    assert store.find("unet", kind="model").folder == a.folder
    assert store.find("unet-l").folder == b.folder
    assert store.find("comparison-").folder == c.folder
    monkeypatch.chdir(store.root)
    assert store.find(Path(a.folder.name)).spec == a.spec


def test_find_says_what_exists(store):
    finished(store, "unet", seed=0)
    finished(store, "unet", seed=1)
    with pytest.raises(UserError, match="Did you mean 'unet'"):
        store.find("umet")
    with pytest.raises(UserError, match="fits 2 runs"):
        store.find("unet")
    with pytest.raises(UserError, match="unknown run ''"):
        store.find("")
    with pytest.raises(UserError, match=r"unknown run 'unet': the store .*empty is not there"):
        Store(store.root / "empty").find("unet")


def test_a_result_is_computed_once(store):
    calls = []

    def compute():
        calls.append(1)
        return xr.Dataset({"x": ("sample", np.arange(3.0))}, attrs={"kind": "test"})

    first = store.result("comparison", "c", SPEC, compute)
    assert store.result("comparison", "c", SPEC, compute).identical(first)
    assert len(calls) == 1
    assert store.result("comparison", "c", {**SPEC, "steps": 1}, compute).identical(first)
    assert store.result("comparison", "c", SPEC, compute, force=True).identical(first)
    assert len(calls) == 3


def test_a_result_that_fails_or_is_torn_is_not_used(store):
    def fail():
        raise UserError("no.")

    with pytest.raises(UserError, match="no"):
        store.result("comparison", "c", {}, fail)
    assert store.runs() == []
    good = store.result("comparison", "c", {}, lambda: xr.Dataset({"x": ("a", [1.0])}))
    path = store.find("c").folder / "result.nc"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=r"result\.nc is truncated"):
        store.result("comparison", "c", {}, fail)
    (path.parent / "done.json").unlink()
    assert store.result("comparison", "c", {}, lambda: good).identical(good)


def test_a_damaged_spec_does_not_make_a_name_mean_its_neighbour(store):
    meant, neighbour = finished(store, "mlp-s3", seed=0), finished(store, "mlp-s3-recipe", seed=1)
    other, gan = finished(store, "unet", seed=2), finished(store, "mlp-s3", "gan", seed=3)
    spec = meant.folder / "spec.json"
    spec.write_bytes(b"\x07" + spec.read_bytes()[1:])
    for text in ("mlp-s3", "mlp-s", "mlp", meant.folder.name, "model-"):
        with pytest.raises(
            StoreError, match=rf"'{text}' may be the run in .*{meant.folder.name}, of which nothing else is known"
        ):
            store.find(text, kind="model")
    with pytest.raises(StoreError, match="may be the run in"):
        store.find("mlp-s3")
    assert store.find("mlp-s3-recipe").folder == store.find("mlp-s3-r").folder == neighbour.folder
    assert store.find("unet").folder == store.find("un").folder == other.folder
    assert store.find("mlp-s3", kind="gan").folder == gan.folder
    assert store.find(neighbour.folder.name).folder == store.find(neighbour.folder).folder == neighbour.folder


def test_a_changed_name_is_no_other_run(store):
    run = finished(store, "mlp-s3")
    spec = run.folder / "spec.json"
    spec.write_text(spec.read_text().replace("mlp-s3", "mlp-s2"))
    with pytest.raises(UserError, match="unknown run 'mlp-s2'"):
        store.find("mlp-s2")
    with pytest.raises(StoreError, match="may be the run in"):
        store.find("mlp-s3")


def test_a_result_of_another_run_in_its_place_is_named(store):
    def result(value):
        return xr.Dataset({"x": ("a", [value])}, attrs={"kind": "test"})

    for seed in range(2):
        store.result("comparison", f"c{seed}", {"seed": seed}, lambda seed=seed: result(float(seed)))
    one, other = (store.find(f"c{seed}").folder / "result.nc" for seed in range(2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match=r"result\.nc is truncated or changed, or another run's"):
        store.result("comparison", "c0", {"seed": 0}, lambda: result(0.0))
    again = store.result("comparison", "c0", {"seed": 0}, lambda: result(0.0), force=True)
    assert again.identical(result(0.0))
    (aside,) = store.set_aside()
    assert (aside / "result.nc").read_bytes() == other.read_bytes()


def test_a_result_that_another_process_computes_is_waited_for(store, caplog):
    run, made = store.run("comparison", "c", {}), xr.Dataset({"x": ("a", [1.0])}, attrs={"kind": "test"})

    def finish():
        while "waiting for the process that holds the run" not in caplog.text:
            time.sleep(0.01)
        save_result(made, run.folder / "result.nc")
        run.finish({})
        held.__exit__(None, None, None)

    held = run.begin()
    held.__enter__()
    writer = threading.Thread(target=finish)
    writer.start()
    assert store.result("comparison", "c", {}, lambda: pytest.fail("computed twice")).identical(made)
    writer.join()


def test_what_cannot_be_told_of_a_file_is_not_taken_for_no(store, monkeypatch):
    run, ordinary = finished(store), Path.stat

    def refuse(path, **options):
        if path.name == "done.json":
            raise PermissionError(errno.EACCES, "Permission denied")
        return ordinary(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(StoreError, match=r"cannot read .*done\.json \(permission denied\); nothing was changed"):
        _ = run.done
