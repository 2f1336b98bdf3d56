import json

from consistency_lab.paper import rows as module
from consistency_lab.paper.rows import Rows
from consistency_lab.store.spec import NUMERICS_VERSION, content_hash, files_named


def test_a_row_is_made_again_when_a_file_that_its_spec_names_has_new_content(tmp_path):
    weights = tmp_path / "squeeze (1).pt"
    weights.write_bytes(b"one")
    spec = {"metrics": ["mse", f"lpips-squeeze(weights={str(weights)!r})"], "count": 4}
    rows, made = Rows(tmp_path / "rows.jsonl"), []

    def value():
        made.append(weights.read_bytes())
        return {"score": len(made)}

    assert [rows.row(spec, value)["score"] for _ in range(2)] == [1, 1]
    weights.write_bytes(b"two")
    assert rows.row(spec, value)["score"] == 2
    weights.write_bytes(b"one")
    assert Rows(tmp_path / "rows.jsonl").row(spec, value)["score"] == 1
    assert made == [b"one", b"two"]


def test_specs_that_name_no_file_keep_the_key_that_they_had(tmp_path):
    spec = {"metrics": ["mse", "ssim(sigma=0.5)", "lpips-alex(weights='nowhere.pt')"], "note": "not a (choice"}
    assert files_named(spec) == {}
    assert Rows(tmp_path / "rows.jsonl").key(spec) == content_hash({"spec": spec, "numerics_version": NUMERICS_VERSION})


def test_a_row_says_which_numerics_made_it(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    Rows(path).row({"a": 1}, lambda: {"x": 1})
    monkeypatch.setattr(module, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
    Rows(path).row({"a": 1}, lambda: {"x": 2})
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["numerics_version"] for line in lines] == [NUMERICS_VERSION, NUMERICS_VERSION + 1]
    assert [line["values"]["x"] for line in lines] == [1, 2]
