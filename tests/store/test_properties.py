import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consistency_lab.errors import DamagedError, StoreError
from consistency_lab.json_text import DEEPEST, parsed
from consistency_lab.store.atomic import file_name
from consistency_lab.store.checksums import KEY, checked, with_checksum
from consistency_lab.store.rows import RowFile
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.store.spec import content_hash

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
specs = st.dictionaries(st.text(), values, max_size=5)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80) | st.sampled_from(
    ["..", "../../a", "a/b", ".", "=1", "$x$"]
)


@settings(max_examples=max(8, settings.default.max_examples // 4))  # each writes through to the disk
@given(specs, names, st.randoms(use_true_random=False))
def test_a_run_is_read_as_it_was_asked_for_and_found_by_its_name_and_spec(spec, name, random):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "runs")
        run = store.run("model", name, spec)
        with run.begin():
            run.log({"step": 1})
            run.finish({"loss": 0.5})
        again = Run.open(run.folder)
        assert (again.kind, again.name, again.spec, again.hash) == ("model", name, run.spec, run.hash)
        assert run.folder.parent == store.root
        assert content_hash(run.spec) == content_hash(spec)
        shuffled = list(spec.items())
        random.shuffle(shuffled)
        assert store.run("model", "another name", dict(shuffled)).folder == run.folder
        assert store.find(name).folder == run.folder
        assert store.verify() == []


@given(st.text(st.characters(), max_size=300))
def test_a_file_name_is_one_name_in_the_folder_whatever_the_text(text):
    name = file_name(text)
    assert name
    assert not name.startswith(".")
    assert not set(name) & set('/\\<>:"|?*\0\n')
    assert len(name.encode(errors="surrogateescape")) <= 150
    assert file_name(name) == name


@given(specs, st.text(max_size=20))
def test_a_checksum_fits_what_it_was_made_of_through_any_layout_and_nothing_else(content, salt):
    assume(KEY not in content)
    summed = json.loads(json.dumps(with_checksum(content, salt), indent=3, sort_keys=True))
    assert checked(summed, "it", "mend it", salt, needed=True) == content
    with pytest.raises(DamagedError, match="it is truncated"):
        checked({**summed, "one more": 1}, "it", "mend it", salt)
    for key in content:
        with pytest.raises(DamagedError):
            checked({**summed, key: [content[key]]}, "it", "mend it", salt)


@settings(max_examples=max(8, settings.default.max_examples // 4))  # each writes through to the disk
@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), values), max_size=8))
def test_rows_are_read_as_they_were_written_the_first_of_a_key(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        file = RowFile(path)
        for key, value in rows:
            file.append({"key": key, "values": {"held": value}})
        first = {}
        for key, value in rows:
            first.setdefault(key, {"held": value})
        found = {key: row["values"] for key, row in RowFile(path).rows.items()}
        assert found == first == {key: row["values"] for key, row in file.rows.items()}


@given(values)
def test_json_of_ours_is_read_and_what_is_nested_deeper_is_refused(value):
    assert parsed(json.dumps(value)) == parsed(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "{", ""])
def test_what_is_no_json_or_nested_without_end_is_a_value_error(text):
    for given_as in (text, text.encode()):
        with pytest.raises(ValueError, match=r"nested|Expecting"):
            parsed(given_as)


@pytest.mark.parametrize(
    "broken", [{"kind": 5}, {"name": ["mlp"]}, {"spec": [1]}, {"spec": {"a": float("nan")}}, {"hash": None}]
)
def test_a_spec_of_other_types_is_named(tmp_path, broken):
    facts = {"kind": "model", "name": "a", "numerics_version": 1, "hash": "0", "spec": {}} | broken
    (tmp_path / "spec.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match=r"spec\.json was not written by"):
        Run.open(tmp_path)


@pytest.mark.parametrize("key", [[], 1, None])
def test_a_row_whose_key_is_no_text_is_damage(tmp_path, key):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"key": key, "values": {}}) + "\n")
    with pytest.raises(DamagedError, match=r"rows\.jsonl is damaged at line 1"):
        RowFile(tmp_path / "rows.jsonl")
