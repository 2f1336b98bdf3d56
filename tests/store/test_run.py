import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.runs import Store

SPEC = {"network": "unet(width=32)", "steps": 1500, "seeds": (0, 2**40), "rate": 1e-3}

CHILD = """
import sys
from consistency_lab.store.runs import Store
with Store(sys.argv[1]).run("model", "a", {"seed": 0}).begin() as run:
    run.log({"step": 0})
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def finished(store, name="a", kind="model", **spec):
    run = store.run(kind, name, spec)
    with run.begin():
        run.finish({"name": name})
    return run


def test_a_run_from_nothing_to_a_result(store):
    run = store.run("model", "unet", SPEC)
    assert not store.root.exists()
    with run.begin():
        assert json.loads((run.folder / "spec.json").read_text())["spec"]["seeds"] == [0, 2**40]
        run.log({"step": 0, "loss": 1.0})
        assert not run.done
        assert run.summary is None
        run.finish({"loss": 0.5})
    again = store.run("model", "unet", SPEC)
    assert again.done
    assert again.summary == {"loss": 0.5}
    assert again.folder == run.folder
    assert again.folder.name == f"model-unet-{run.hash[:12]}"
    assert again.spec == {**SPEC, "seeds": [0, 2**40]}


def test_a_folder_without_done_is_no_result(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 0})
    assert [(found.name, found.done) for found in store.runs()] == [("a", False)]


def test_a_block_that_writes_nothing_leaves_nothing(store):
    with pytest.raises(UserError), store.run("model", "a", {}).begin():
        raise UserError("the batch is larger than the data.")
    assert list(store.root.iterdir()) == []


def test_a_second_holder_is_refused_and_a_killed_holder_lets_go(store):
    run = store.run("model", "a", {"seed": 0})
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        try:
            for attempt in (lambda: run.begin().__enter__(), run.set_aside):
                with pytest.raises(StoreError, match="another process holds"):
                    attempt()
            assert not run.done
            assert run.records() == [{"step": 0}]
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    (run.folder / "snapshots").mkdir()
    left = [run.folder / ".tmp-0123", run.folder / "snapshots" / ".tmp-45.safetensors"]
    for path in left:
        path.write_text("half of a file")
    with run.begin():
        assert not any(path.exists() for path in left)
        assert run.records() == [{"step": 0}]
        run.finish({})
    assert run.done


def test_one_process_cannot_begin_a_run_twice(store):
    run = store.run("model", "a", {})
    with run.begin(), pytest.raises(StoreError, match="another process holds"), store.run("model", "a", {}).begin():
        pass


def test_writing_needs_begin(store):
    run = finished(store)
    for attempt in (lambda: run.log({"step": 0}), lambda: run.finish({}), run.truncate_log):
        with pytest.raises(RuntimeError, match="begin"):
            attempt()


def test_the_log_keeps_numbers_exactly_and_forgets_what_a_resume_repeats(store):
    run = store.run("model", "a", {})
    losses = [0.1, 1 / 3, math.inf, math.nan, 1e-300]
    with run.begin():
        assert run.records() == []
        for step, loss in enumerate(losses):
            run.log({"step": step, "loss": np.float64(loss), "count": np.int64(step)})
        run.truncate_log(3)
        run.log({"step": 4, "loss": 2.0, "count": 4})
        with pytest.raises(ValueError, match="step"):
            run.log({"loss": 1.0})
    np.testing.assert_array_equal([record["loss"] for record in run.records()], [*losses[:4], 2.0])
    assert [record["count"] for record in run.records()] == [0, 1, 2, 3, 4]


def test_a_torn_last_line_is_dropped_and_mended(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 0})
        run.log({"step": 1})
    log = run.folder / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 2, "lo')
    assert run.records() == [{"step": 0}, {"step": 1}]
    with run.begin():
        run.log({"step": 2})
    assert run.records() == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_log_that_is_damaged_inside_is_named(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 0})
    (run.folder / "metrics.jsonl").write_text('{"st\n{"step": 1}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl is damaged at line 1"):
        run.records()


def test_a_run_is_set_aside_with_all_that_lies_in_it_and_only_a_run(store):
    places = []
    for _ in range(2):
        run = finished(store)
        (run.folder / "notes.txt").write_text("mine")
        places.append(run.set_aside())
        assert run.set_aside() is None
        assert not run.done
    assert [(place / "notes.txt").read_text() for place in places] == ["mine", "mine"]
    assert [place.name.startswith(f"{run.folder.name}.20") for place in places] == [True, True]
    assert store.set_aside() == sorted(places)
    assert store.runs() == []
    (run.folder / "precious").mkdir(parents=True)
    for attempt in (run.set_aside, lambda: run.begin().__enter__()):
        with pytest.raises(StoreError, match=r"spec\.json"):
            attempt()
    assert (run.folder / "precious").is_dir()


def test_a_damaged_done_file_is_named(store):
    run = finished(store)
    (run.folder / "done.json").write_text('{"na')
    with pytest.raises(StoreError, match=r"done\.json is truncated"):
        _ = run.summary


def test_a_finished_run_says_what_it_consisted_of_and_what_is_gone(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 1})
        (run.folder / "snapshots").mkdir()
        for name in ("weights", "snapshots/one", "state"):
            (run.folder / name).write_text("x")
        run.finish({"loss": 1.0}, passing=["state"])
    (run.folder / "state").unlink()
    assert run.missing() == []
    assert run.summary == {"loss": 1.0}
    (run.folder / "snapshots" / "one").unlink()
    assert run.missing() == ["snapshots/one"]


@pytest.mark.parametrize("end", [-1, -5, -60])
def test_the_log_of_a_finished_run_is_whole_or_named(store, end):
    run = store.run("model", "a", {})
    with run.begin():
        for step in range(3):
            run.log({"step": step, "loss": 0.5})
        run.finish({})
    log = run.folder / "metrics.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[:end])
    if end == -1:  # the newline alone
        assert len(run.records()) == 3
    else:
        with pytest.raises(StoreError, match=r"metrics\.jsonl is truncated: it has 2 of 3 lines"):
            run.records()
    log.write_bytes(content.replace(b"0.5", b"0.6", 1))
    with pytest.raises(StoreError, match=r"metrics\.jsonl is damaged at line 1: it"):
        run.records()


def test_lines_without_checksums_are_of_earlier_versions_or_damaged(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 0})
    log, spec = run.folder / "metrics.jsonl", run.folder / "spec.json"
    log.write_text('{"step": 0}\n{"step": 1}\n')
    with pytest.raises(StoreError, match="is damaged at line 1"):
        run.records()
    facts = json.loads(spec.read_text())
    del facts["checksum"]
    spec.write_text(json.dumps(facts))
    old = store.find("a")
    assert old.records() == [{"step": 0}, {"step": 1}]
    with old.begin():
        old.log({"step": 2})
        old.finish({})
    assert len(store.find("a").records()) == 3


def test_a_file_that_a_user_has_called_nearly_so_is_not_swept_away(store):
    run = store.run("model", "a", {})
    with run.begin():
        run.log({"step": 0})
    (run.folder / ".tmp-notes.txt").write_text("mine")
    (run.folder / ".tmp-0123abcd.pt").write_text("half of a file")
    with run.begin():
        pass
    assert (run.folder / ".tmp-notes.txt").exists()
    assert not (run.folder / ".tmp-0123abcd.pt").exists()
