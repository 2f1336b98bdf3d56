"""A slice of `fuzz`: whatever a file holds, its numbers are right or it is named. ``make fuzz`` runs many thousands of rounds."""

import os
import random
import signal

import fuzz
import pytest

READERS = 52
ROUNDS = READERS * len(fuzz.DAMAGE)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the memory of a round is limited as Linux does it")
def test_every_reader_names_the_file_or_gives_the_numbers_that_its_checksum_vouches_for():
    counts, wrong = fuzz.fuzz(ROUNDS, seed=7)
    assert wrong == []
    assert sum(counts.values()) == ROUNDS
    pairs = {(name, damage) for name, damage, _ in counts}
    assert {damage for _, damage in pairs} == set(fuzz.DAMAGE)
    assert len({name for name, _ in pairs}) == READERS
    assert len(pairs) == ROUNDS - 1  # programs are not packed again
    assert {said for *_, said in counts} >= {"named", "as written", "no checksum"}


@pytest.mark.parametrize("damage", fuzz.DAMAGE)
@pytest.mark.parametrize(
    "whole", [b"", b"{}", b'{"a": [1, {"b": "[1]"}]}', b'{"a": 1}\n{"b": 2}\n', b"\x1f\x8b", bytes(300)]
)
def test_a_damage_is_a_function_of_its_seed_for_files_of_any_kind(whole, damage):
    if whole == b"\x1f\x8b":
        whole = fuzz.gzip.compress(b"x" * 50, mtime=0)
    made = [fuzz.damaged(whole, damage, random.Random(seed)) for seed in range(40)]
    assert made == [fuzz.damaged(whole, damage, random.Random(seed)) for seed in range(40)]
    assert len(set(made)) > 1 or not whole or damage in ("zeroed block", "truncation")


def test_a_round_that_ends_its_process_is_counted_and_the_others_go_on(monkeypatch, tmp_path):
    script = tmp_path / "rounds.py"
    script.write_text(
        "import json, os, signal, sys\n"
        "for number in range(int(sys.argv[2]), int(sys.argv[3])):\n"
        "    print(json.dumps([number, 'file', 'bit flip']), flush=True)\n"
        "    if number == 2: os.kill(os.getpid(), signal.SIGABRT)\n"
        "    print(json.dumps([number, 'file', 'bit flip', 'named', '']), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    counts, wrong = fuzz.fuzz(5)
    assert counts == {("file", "bit flip", "named"): 4, ("file", "bit flip", "KILLED"): 1}
    assert len(wrong) == 1
    assert signal.SIGABRT.name in wrong[0]
