"""The command `verify`: what is wrong in a store or beside it, and what to do."""

import json
import shutil

import pytest

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.paper.rows import Rows
from consistency_lab.store.results import save_result
from consistency_lab.store.runs import Store


@pytest.fixture
def place(trained, tmp_path, results):
    """A folder with a store in it, a result, a recipe and rows."""
    shutil.copytree(trained, tmp_path / "runs")
    save_result(results.recipe(), tmp_path / "results" / "recipe.nc")
    cl.Recipe.paper().save(tmp_path / "recipe.json")
    for row in range(2):
        Rows(tmp_path / "rows.jsonl").row({"row": row}, lambda: {"score": 0.5})
    return tmp_path


def verified(capsys, *options):
    status = main(["verify", *map(str, options)])
    return status, capsys.readouterr().out.splitlines()


def test_a_store_and_what_lies_beside_it_are_as_they_were_written(place, capsys):
    (place / "notes.json").write_text('{"mine": 1}')
    status, lines = verified(capsys, place)
    assert status == 0
    files = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert lines == [f"{len(files) - 1} files looked at: all as they were written."]
    assert Store(place / "runs").verify(place / "rows.jsonl") == []


@pytest.mark.parametrize(
    ("file", "said", "to_do"),
    [
        ("runs/*s0*/ema.safetensors", "its checksum does not fit", "restore it from a copy"),
        ("runs/*s0*/snapshots/step-0000025.safetensors", "its checksum does not fit", "restore it from a copy"),
        ("runs/*s0*/metrics.jsonl", "damaged at line", "which sets this folder aside"),
        ("runs/*s0*/done.json", "damaged|checksum", "move its folder away"),
        ("runs/*s0*/spec.json", "damaged|checksum", "move its folder away"),
        ("results/recipe.nc", "its checksum does not fit", "compute it again"),
        ("recipe.json", "checksum|damaged", "restore it from a copy"),
        ("rows.jsonl", "line 2", "its row is made again"),
    ],
)
def test_a_changed_file_is_named_with_what_to_do(place, capsys, file, said, to_do):
    (path,) = place.glob(file)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    status, lines = verified(capsys, place)
    assert status == 1
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert len(wrong) == 1
    assert str(path) in wrong[0]
    assert any(each in wrong[0] for each in said.split("|"))
    assert to_do in wrong[0]
    status, lines = verified(capsys, place, "--json")
    assert status == 1
    (found,) = json.loads("\n".join(lines))["found"]
    assert (found["path"], found["wrong"]) == (str(path), True)


def test_what_is_gone_swapped_torn_set_aside_or_left_over_is_named(place, capsys):
    one, other = (place / "runs" / run.folder.name for run in Store(place / "runs").runs())
    (one / "raw.safetensors").unlink()
    shutil.copy(one / "ema.safetensors", other / "ema.safetensors")
    with open(place / "rows.jsonl", "a") as file:
        file.write('{"check')
    (other / ".tmp-0123abcd.nc").write_text("half of a file")
    (place / "runs" / "set-aside" / "old").mkdir(parents=True)
    _, lines = verified(capsys, place)
    text = "\n".join(lines)
    for words in (
        f"WRONG  {one / 'raw.safetensors'}  is gone from a finished run",
        f"WRONG  {other / 'ema.safetensors'}  is of another run",
        f"WRONG  {place / 'rows.jsonl'}  ends within a line; the next row that is written mends it",
        f"note   {other / '.tmp-0123abcd.nc'}  was left by a writer that was killed",
        f"note   {place / 'runs' / 'set-aside' / 'old'}  was set aside",
    ):
        assert words in text
    assert lines[-1].endswith("3 wrong.")


def test_files_without_a_checksum_are_told_once_and_are_not_wrong(place, capsys):
    content = json.loads((place / "recipe.json").read_text())
    del content["checksum"]
    (place / "recipe.json").write_text(json.dumps(content))
    status, lines = verified(capsys, place)
    assert status == 0
    assert "no checksum in 1 of" in lines[0]
    assert str(place / "recipe.json") in lines[0]


def test_what_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_a_log_that_ends_in_bytes_of_something_else_is_named(place, capsys):
    log = next(place.rglob("metrics.jsonl"))
    with open(log, "ab") as file:
        file.write(b"\xff\x00\x89")
    status, lines = verified(capsys, place)
    assert status == 1
    assert any(str(log) in line for line in lines)


def test_a_name_in_an_error_cannot_drive_the_terminal(place, capsys):
    assert main(["verify", str(place / "none\x1b[2J.json")]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"none\x1b[2J.json" in said


def test_a_run_that_is_no_longer_declared_finished_or_described_is_named(place, capsys):
    one, other = (place / "runs" / run.folder.name for run in Store(place / "runs").runs())
    (one / "done.json").unlink()
    (other / "spec.json").unlink()
    status, lines = verified(capsys, place / "runs")
    assert status == 1
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert f"{one / 'done.json'}  is gone, and so is checkpoint.pt" in "\n".join(wrong)
    assert f"{other / 'spec.json'}  is gone from a run" in "\n".join(wrong)
    assert all("put it back" in line or "restore it from a copy" in line for line in wrong)


def test_a_run_without_its_spec_is_listed_and_its_name_is_not_its_neighbours(place, caplog):
    _, other = Store(place / "runs").runs()
    (other.folder / "spec.json").unlink()
    assert len(Store(place / "runs").runs()) == 1
    assert f"{other.folder / 'spec.json'} (no such file or directory); restore it from a copy" in caplog.text
    with pytest.raises(cl.UserError, match="may be the run in"):
        Store(place / "runs").find(other.name)


def test_a_folder_that_was_renamed_is_noted(place, capsys):
    run = Store(place / "runs").runs()[0]
    run.folder.rename(place / "runs" / "mine")
    status, lines = verified(capsys, place / "runs")
    assert status == 0
    assert lines[0].startswith(f"note   {place / 'runs' / 'mine'}  has another name")
    assert f"ends with -{run.hash[:12]}" in lines[0]
