import hashlib
import io
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr

from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.store.checkpoint import (
    check_state,
    check_tensors,
    load_run_tensors,
    load_state,
    load_tensors,
    save_run_tensors,
    save_state,
    save_tensors,
)
from consistency_lab.store.checksums import BLANK, MARK, checked, sum_holds, with_checksum, write_summed
from consistency_lab.store.results import load_result, save_result
from consistency_lab.store.runs import Store

RESULT = xr.Dataset({"x": ("sample", np.arange(50.0))}, attrs={"kind": "test"})


@pytest.mark.parametrize("before", [0, 7, (1 << 20) - 40, (1 << 20) - 30, (1 << 20) - 3, 1 << 20])
def test_the_sum_is_blake2b_of_the_content_with_zeros_in_its_place(tmp_path, before):
    content = b"a" * before + BLANK.encode() + b"behind"
    write_summed(tmp_path / "file", content, before)
    written = (tmp_path / "file").read_bytes()
    digits = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert written == content.replace(b"0" * 32, digits.encode())
    assert sum_holds(io.BytesIO(written), written)
    assert sum_holds(io.BytesIO(written), written[before:], before)
    assert sum_holds(io.BytesIO(written + b"x"), written) is False
    assert sum_holds(io.BytesIO(b"none"), b"none") is None


def test_a_json_object_is_known_by_what_it_says_and_not_by_its_layout():
    content = {"b": [1, 0.1, float("nan"), "ä"], "a": {"x": None}}
    summed = with_checksum(content)
    again = json.loads(json.dumps(dict(reversed(summed.items())), indent=3))
    assert str(checked(again, "it", "restore it")) == str({"a": {"x": None}, "b": [1, 0.1, float("nan"), "ä"]})
    for other, salt in ((summed | {"b": [1.0]}, ""), (summed | {"c": 1}, ""), (summed, "of another")):
        with pytest.raises(DamagedError, match=r"^it .*checksum does not fit; restore it\.$"):
            checked(other, "it", "restore it", salt)
    assert checked(content, "it", "restore it") is content
    with pytest.raises(DamagedError):
        checked(content, "it", "restore it", needed=True)


def written(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    if kind == "nc":
        save_result(RESULT, path)
    elif kind == "pt":
        save_state(path, {"w": torch.arange(50.0), "step": 7})
    else:
        save_tensors(path, {"w": torch.arange(50.0)}, {"a": 1})
    return path


READ = {"nc": load_result, "pt": load_state, "safetensors": load_tensors}


@pytest.mark.parametrize("kind", READ)
def test_a_flip_of_any_bit_of_the_numbers_is_named(tmp_path, kind):
    path = written(tmp_path, kind)
    content = path.read_bytes()
    place = content.index(np.arange(50.0, dtype=">f8" if kind == "nc" else "<f4").tobytes())
    for bit in range(0, 50 * 8 * 4, 97):
        damaged = bytearray(content)
        damaged[place + bit // 8] ^= 1 << bit % 8
        path.unlink()
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match="checksum does not fit"):
            READ[kind](path)


def test_other_programs_read_the_files_and_files_of_others_are_read(tmp_path):
    weights, state, result = (written(tmp_path, kind) for kind in ("safetensors", "pt", "nc"))
    assert torch.equal(safetensors.torch.load_file(weights)["w"], torch.arange(50.0))
    assert torch.load(state, weights_only=True)["step"] == 7
    assert np.array_equal(xr.load_dataset(result, engine="scipy")["x"], RESULT["x"])
    assert load_result(result).identical(RESULT)
    assert (check_tensors(weights), check_state(state)) == (True, True)
    safetensors.torch.save_file({"w": torch.ones(2)}, weights)
    torch.save({"step": 8}, state)
    RESULT.to_netcdf(result, engine="scipy")
    assert (check_tensors(weights), check_state(state)) == (False, False)
    assert load_state(state) == {"step": 8}
    assert load_result(result).equals(RESULT)


def test_a_result_that_was_read_by_another_program_and_saved_again_has_a_sum_of_its_own(tmp_path):
    path = written(tmp_path, "nc")
    foreign = xr.load_dataset(path, engine="scipy")
    save_result(foreign * 2, path)
    save_result((foreign * 2).assign_attrs(foreign.attrs), path)
    assert load_result(path).identical((RESULT * 2).assign_attrs(RESULT.attrs))


def test_a_state_that_looks_like_one_of_an_earlier_version_has_its_end(tmp_path):
    path = written(tmp_path, "pt")
    content = path.read_bytes()
    plain = content[: content.index(b"\n" + MARK.encode())]
    for ending in (b"\n" + MARK.encode()[:9], b"\0" * 57, b"PK"):
        path.write_bytes(plain + ending)
        with pytest.raises(DamagedError):
            load_state(path)
    path.write_bytes(plain)
    assert load_state(path)["step"] == 7


def test_zeros_behind_the_magic_number_are_no_result_without_variables(tmp_path):
    path = written(tmp_path, "nc")
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"\0" * (len(content) - 8))
    with pytest.raises(DamagedError, match="truncated"):
        load_result(path)


def test_tensors_in_a_run_folder_are_of_that_run_and_have_that_name(tmp_path):
    store = Store(tmp_path)
    one, other = (store.run("model", "a", {"seed": seed}) for seed in range(2))
    for run in (one, other):
        with run.begin():
            for name in ("ema.safetensors", "raw.safetensors"):
                save_run_tensors(run, name, {"w": torch.ones(2)}, {"weights": name})
    assert load_run_tensors(one, "ema.safetensors")[1]["weights"] == "ema.safetensors"
    ema = (one.folder / "ema.safetensors").read_bytes()
    (other.folder / "ema.safetensors").write_bytes(ema)
    with pytest.raises(DamagedError, match="is of another run"):
        load_run_tensors(other, "ema.safetensors")
    (one.folder / "raw.safetensors").write_bytes(ema)
    with pytest.raises(DamagedError, match=r"was written as ema\.safetensors"):
        load_run_tensors(one, "raw.safetensors")
    # Of earlier versions weights hold the spec, and snapshots nothing.
    for metadata, fits in (({"spec": one.spec}, True), ({}, True), ({"spec": other.spec}, False)):
        save_tensors(one.folder / "raw.safetensors", {"w": torch.ones(2)}, metadata)
        if fits:
            load_run_tensors(one, "raw.safetensors")
        else:
            with pytest.raises(DamagedError, match="is of another run"):
                load_run_tensors(one, "raw.safetensors")


@pytest.mark.parametrize("kind", READ)
def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(tmp_path, kind):
    path = written(tmp_path, kind)
    path.unlink()
    path.symlink_to("/proc/self/mem")  # of which every read is an I/O error
    if not path.exists():
        pytest.skip("this system has no such file")
    with pytest.raises(StoreError, match=r"cannot read .*nothing was changed") as caught:
        READ[kind](path)
    assert not isinstance(caught.value, DamagedError)
