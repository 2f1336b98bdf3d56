import json
import random
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consistency_lab.errors import StoreError
from consistency_lab.store.spec import canonical, content_hash, files_named

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
specs = st.dictionaries(st.text(), values, max_size=5)


def reordered(value, shuffle):
    """The same value with the keys of every dict in another order, and tuples for lists."""
    if isinstance(value, dict):
        items = [(key, reordered(inner, shuffle)) for key, inner in value.items()]
        shuffle(items)
        return dict(items)
    return tuple(reordered(inner, shuffle) for inner in value) if isinstance(value, list) else value


def typed(value):
    """A value that is equal exactly if two specs are: Python holds 1 == 1.0 == True and 0.0 == -0.0."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return (type(value), repr(value))


@given(specs, st.integers(0, 2**32))
def test_the_order_of_keys_does_not_count_and_tuples_are_lists(spec, seed):
    assert content_hash(reordered(spec, random.Random(seed).shuffle)) == content_hash(spec)


@given(specs, specs)
def test_different_specs_have_different_hashes(one, other):
    assume(typed(one) != typed(other))
    assert content_hash(one) != content_hash(other)


@given(specs, st.text(), values, values)
def test_one_changed_value_changes_the_hash(spec, key, one, other):
    assume(typed(one) != typed(other))
    assert content_hash({**spec, key: one}) != content_hash({**spec, key: other})


@given(specs)
def test_the_hash_survives_the_way_through_json(spec):
    assert content_hash(json.loads(json.dumps(spec))) == content_hash(spec)


def test_integers_floats_and_truth_values_are_told_apart():
    assert len({content_hash({"a": value}) for value in (1, 1.0, True, "1", [1])}) == 5


def test_the_hash_is_the_same_in_every_process_and_release():
    assert canonical({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert content_hash({"b": (1, 2.5), "a": None}).startswith("e57f5d37865437a8")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"a": {"b": [0, float("nan")]}}, "'a.b[1]'"),
        ({"a": float("inf")}, "'a'"),
        ({"a": {1: 2}}, "'a'"),
        ({"a": object()}, "object"),
        ({"a": {2, 3}}, "set"),
    ],
)
def test_what_json_cannot_say_is_refused_where_it_stands(spec, named):
    with pytest.raises(StoreError) as caught:
        content_hash(spec)
    assert named in str(caught.value)


def test_looking_at_runs_imports_neither_torch_nor_xarray():
    code = (
        "import sys, tempfile; from consistency_lab.store import spec, runs; "
        "store = runs.Store(tempfile.mkdtemp()); store.run('model', 'a', {}); store.check(); store.runs(); "
        "print([name for name in ('torch', 'numpy', 'scipy', 'pandas', 'xarray', 'filelock') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_file_that_a_spec_names_and_that_cannot_be_read_is_one_sentence(tmp_path):
    path = tmp_path / "weights.pt"
    path.symlink_to("/proc/self/mem")  # of which every read is an I/O error
    if not path.exists():
        pytest.skip("this system has no such file")
    with pytest.raises(StoreError, match=r"cannot read .*weights\.pt"):
        files_named({"metric": f"lpips-squeeze(weights={str(path)!r})"})
