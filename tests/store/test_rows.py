"""Rows that several processes write to: nothing is lost and nothing stands there twice, whoever is killed when."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.store import rows as module
from consistency_lab.store.rows import RowFile

FORK = multiprocessing.get_context("fork")  # children that begin in no time


def write_rows(path, worker, own, shared, torn_at=None):
    """Append own rows and shared ones in turn; after ``torn_at`` of them write half a line and die at once."""
    ordinary, count = os.write, 0

    def half(file, line):
        ordinary(file, line[: len(line) // 2])
        os._exit(9)

    file = RowFile(path)
    for i in range(max(own, shared)):
        for key in [f"{worker}-{i}"] * (i < own) + [f"shared-{i}"] * (i < shared):
            if count == torn_at:
                os.write = half
            file.append({"key": key, "values": {"x": i, "by": worker}})
            count += 1


def begin(*args):
    process = FORK.Process(target=write_rows, args=args)
    process.start()
    return process


def check(path, workers, own, shared):
    keys = [json.loads(line)["key"] for line in path.read_bytes().decode().splitlines()]
    wanted = {f"{w}-{i}" for w in range(workers) for i in range(own)} | {f"shared-{i}" for i in range(shared)}
    assert sorted(keys) == sorted(wanted)
    file = RowFile(path)
    assert (file.torn, file.repeated, file.unsummed) == (False, 0, 0)
    assert all(row["values"]["x"] == int(key.partition("-")[2]) for key, row in file.rows.items())


def test_four_writers_of_whom_three_are_killed_within_a_line_lose_nothing_and_write_nothing_twice(tmp_path):
    path, workers, own, shared = tmp_path / "rows.jsonl", 4, 20, 20
    running = [begin(path, w, own, shared, None if w == 3 else 5 + 7 * w) for w in range(workers)]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [9, 9, 9, 0]
    again = [begin(path, w, own, shared) for w in range(workers)]
    for process in again:
        process.join()
    assert [process.exitcode for process in again] == [0] * workers
    check(path, workers, own, shared)


@pytest.mark.slow
def test_a_hundred_rounds_of_four_writers_that_are_killed_at_random(tmp_path):
    rng = random.Random(0)
    for number in range(100):
        path = tmp_path / f"{number}.jsonl"
        running = [begin(path, w, 10, 10) for w in range(4)]
        for _ in range(8):
            time.sleep(rng.uniform(0, 0.05))
            w = rng.randrange(4)
            if rng.random() < 0.5:
                running[w].kill()
            running[w].join()
            torn_at = rng.choice([None, rng.randrange(20)])
            assert running[w].exitcode in (0, 9, -signal.SIGKILL)
            running[w] = begin(path, w, 10, 10, torn_at)
        for w, process in enumerate(running):
            process.join()
            (last := begin(path, w, 10, 10)).join()
            assert last.exitcode == 0
        check(path, 4, 10, 10)


def test_of_two_that_compute_one_row_the_first_counts_for_both(tmp_path):
    first, second = (RowFile(tmp_path / "rows.jsonl") for _ in range(2))
    assert first.append({"key": "a", "values": {"x": 1}})["values"] == {"x": 1}
    assert second.append({"key": "a", "values": {"x": 2}})["values"] == {"x": 1}
    second.append({"key": "b", "values": {"x": 3}})
    first.refresh()
    assert [row["values"]["x"] for row in first.rows.values()] == [1, 3]


def test_the_file_is_followed_when_somebody_takes_rows_out(tmp_path):
    file = RowFile(tmp_path / "rows.jsonl")
    for key in "abc":
        file.append({"key": key, "values": {}})
    lines = file.path.read_text().splitlines(keepends=True)
    file.path.write_text("".join(lines[1:]))
    file.append({"key": "d", "values": {}})
    assert list(file.rows) == ["b", "c", "d"]
    file.path.unlink()
    file.refresh()
    assert file.rows == {}


def test_older_rows_without_a_checksum_a_blank_line_and_a_lost_last_newline_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"key": "a", "values": {"x": 1}}\r\n\n{"key": "b", "values": {"x": 2}}')
    file = RowFile(path)
    assert (list(file.rows), file.unsummed, file.torn) == (["a", "b"], 2, False)
    for key in "cd":
        file.append({"key": key, "values": {}})
    assert list(RowFile(path).rows) == ["a", "b", "c", "d"]
    path.write_bytes(path.read_bytes() + b'{"key": "a", "values": {"x": 9}}\n')  # as a merge may
    assert (RowFile(path).repeated, RowFile(path).rows["a"]["values"]) == (1, {"x": 1})


def test_a_torn_line_is_read_past_and_cut_off_by_the_next_writer(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    RowFile(path).append({"key": "a", "values": {"x": 1}})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    file = RowFile(path)
    assert (list(file.rows), file.torn) == (["a"], True)
    file.append({"key": "b", "values": {}})
    assert "is cut off" in caplog.text
    assert path.read_bytes().startswith(whole + b'{"checksum"')
    assert (list(RowFile(path).rows), file.torn) == (["a", "b"], False)


@pytest.mark.parametrize("damage", [b"1", b"\0", b"\xff", b"\n"])
def test_a_changed_line_is_named_and_nothing_is_written_behind_it(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    for key in "abc":
        RowFile(path).append({"key": key, "values": {"x": 0.25}})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"0.25")] = damage[0]
    file = RowFile(tmp_path / "none.jsonl")
    file.path = path
    path.write_bytes(content)
    for attempt in (lambda: RowFile(path), lambda: file.append({"key": "d", "values": {}})):
        with pytest.raises(DamagedError, match=r"line 3 of|at line 3"):
            attempt()
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = RowFile(tmp_path / "rows.jsonl")
    file.append({"key": "a", "values": {}})
    before, ordinary = file.path.read_bytes(), os.write

    def full(descriptor, line):
        if len(line) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return ordinary(descriptor, line[:-10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="no space left"):
        file.append({"key": "b", "values": {}})
    monkeypatch.undo()
    assert file.path.read_bytes() == before
    assert list(file.append({"key": "b", "values": {}})) == ["key", "values"]


def test_a_lock_that_is_not_let_go_is_named(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    file = RowFile(tmp_path / "rows.jsonl")
    ready, done = FORK.Event(), FORK.Event()

    def hold():
        with FileLock(tmp_path / ".rows.jsonl.lock"):
            ready.set()
            done.wait()

    holder = FORK.Process(target=hold)
    holder.start()
    ready.wait()
    with pytest.raises(StoreError, match=r"another process has held .*\.rows\.jsonl\.lock"):
        file.append({"key": "a", "values": {}})
    done.set()
    holder.join()
    file.append({"key": "a", "values": {}})
