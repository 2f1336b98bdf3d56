import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from consistency_lab.errors import StoreError
from consistency_lab.store import results
from consistency_lab.store.results import (
    environment,
    load_result,
    provenance,
    save_frame,
    save_result,
    to_frame,
    with_provenance,
)
from consistency_lab.store.spec import NUMERICS_VERSION


def anything() -> xr.Dataset:
    """No result of the package: every type and shape that one may hold."""
    rng = np.random.default_rng(0)
    names = ["unet, seed 0", "unet, seed 1", "näïve ☃"]
    dims = ("pair", "t", "sample", "metric")
    return xr.Dataset(
        {
            "distance": (dims, rng.random((3, 4, 5, 2), np.float32)),
            "null": (dims, rng.random((3, 4, 5, 2), np.float32)),
            "score": (("pair", "t", "metric"), np.where(np.arange(2), np.nan, rng.random((3, 4, 2)))),
            "images": (("model", "shown", "row"), rng.integers(0, 256, (3, 2, 8)).astype(np.int16)),
        },
        coords={
            "model": names,
            "pair": [f"{names[a]} | {names[b]}" for a, b in ((0, 1), (0, 2), (1, 2))],
            "first": ("pair", np.array([0, 0, 1], np.int32)),
            "t": [0.999, 0.5, 0.25, 0.0],
            "log_snr": ("t", [-10.0, 0.0, 2.0, np.inf]),
            "metric": ["mse", "cosine"],
            "seed": ("model", [0, 2**40, -(2**53)]),
        },
        attrs={"units_mse": "pixel^2", "interval": "", "barrier": np.nan, "count": 3},
    )


def assert_same(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_identical(one, other)
    assert set(one.coords) == set(other.coords)
    for name in one.variables:
        kind = one[name].dtype.kind
        assert other[name].dtype.isnative
        assert other[name].dtype == one[name].dtype or kind in "OUT", name


def test_a_result_with_everything_round_trips(tmp_path):
    facts = {"seeds": [2**40, 0], "nested": {"models": [{"name": "ä", "options": {"width": 32, "none": None}}]}}
    ds = with_provenance(anything(), "test", **facts)
    ds["distance"].attrs.update(units="seconds since never", scale_factor="text")
    before = ds.copy(deep=True)
    save_result(ds, tmp_path / "result.nc")
    assert_same(before, ds)
    loaded = load_result(tmp_path / "result.nc")
    assert_same(ds, loaded)
    assert {key: provenance(loaded)[key] for key in facts} == facts
    assert type(loaded.attrs["count"]) is int
    torch.from_numpy(loaded["distance"].values)
    assert list(loaded.data_vars) == list(ds.data_vars)
    save_result(loaded, tmp_path / "second.nc")
    assert_same(ds, load_result(tmp_path / "second.nc"))


def test_the_same_result_is_the_same_file(tmp_path):
    for name in ("a.nc", "b.nc"):
        save_result(anything(), tmp_path / name)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False]),
        np.array([0, 128, 255], np.uint8),
        np.array([0, 2**16 - 1], np.uint16),
        np.array([0, 2**32 - 1], np.uint32),
        np.array([-(2**53), 2**53]),
        np.array([-(2**31), 2**31 - 1]),
        np.array([2**53], np.uint64),
        np.array([1 / 3, np.nan, -np.inf], np.float16),
        np.array([np.nan, np.inf, -0.0, 5e-324]),
        np.array(["", "a", "☃ ä"]),
        np.array(["a", "bc"], object),
        np.array(["", ""]),
        np.array(2**40),
        np.array("scalar"),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
def test_every_type_comes_back_as_it_was(tmp_path, values):
    dims = ("a", "b")[: values.ndim]
    ds = xr.Dataset({"x": (dims, values, {"units": ""})}, coords={"c": (dims, values)})
    save_result(ds, tmp_path / "r.nc")
    assert_same(ds, load_result(tmp_path / "r.nc"))


@given(hnp.arrays(st.sampled_from(["f4", "f8", "i2", "i4", "u1", "?"]), hnp.array_shapes(min_dims=1, max_dims=3)))
def test_any_array_comes_back_as_it_was(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("any") / "r.nc"
    ds = xr.Dataset({"x": (("a", "b", "c")[: values.ndim], values)})
    save_result(ds, path)
    assert_same(ds, load_result(path))


@pytest.mark.parametrize(
    ("ds", "named"),
    [
        (xr.Dataset({"x": ("a", [2**53 + 1])}), "'x'"),
        (xr.Dataset({"x": ("a", np.array([1, "b"], object))}), "'x'"),
        (xr.Dataset({"x": ("a", np.array([1j]))}), "'x'"),
        (xr.Dataset({"x": ("a", np.array(["2026-01-01"], "M8[ns]"))}), "'x'"),
        (xr.Dataset({"x": ("a", [1.0], {"nested": {}})}), "'nested'"),
        (xr.Dataset({"x": (("a", "b"), np.zeros((2, 0)))}), "'b'"),
        (xr.Dataset(attrs={"seed": 2**40}), "'seed'"),
        (xr.Dataset(attrs={"flag": True}), "'flag'"),
        (xr.Dataset(attrs={"none": None}), "'none'"),
        (xr.Dataset(attrs={"list": ["a"]}), "'list'"),
    ],
)
def test_what_netcdf_cannot_hold_is_refused_by_name_with_nothing_written(tmp_path, ds, named):
    with pytest.raises(StoreError, match=named):
        save_result(ds, tmp_path / "r.nc")
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_noticed_and_named(tmp_path):
    path = tmp_path / "result.nc"
    save_result(anything()[["score"]], path)
    data = path.read_bytes()
    for kept in [*range(0, 200, 7), *range(200, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:kept])
        with pytest.raises(StoreError) as caught:
            load_result(path)
        assert f"{path} is truncated" in str(caught.value)


def test_missing_and_unwritable_files_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"no result .*gone\.nc"):
        load_result(tmp_path / "gone.nc")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        save_result(anything(), tmp_path / "file" / "r.nc")
    with pytest.raises(StoreError, match="cannot write"):
        save_frame(anything(), tmp_path / "file" / "r.csv")


def test_provenance_tells_the_environment_and_facts_win(tmp_path):
    ds = with_provenance(
        xr.Dataset(), "test", device="a device", seed=np.int64(3), folder=tmp_path, loss=np.float32(0.5)
    )
    told = provenance(ds)
    assert ds.attrs["kind"] == "test"
    assert told["device"] == "a device"
    assert (told["seed"], told["loss"], told["folder"]) == (3, 0.5, str(tmp_path))
    assert (
        told["versions"]["torch"] == torch.__version__.split("+")[0] or told["versions"]["torch"] == torch.__version__
    )
    assert told["threads"] == torch.get_num_threads()
    assert told["numerics_version"] == NUMERICS_VERSION
    with pytest.raises(StoreError, match="Tensor"):
        with_provenance(xr.Dataset(), "test", weights=torch.ones(2))


def test_provenance_names_every_package_that_numbers_rest_on_and_imports_none():
    asked = {
        "lpips",
        "torchvision",
        "scikit-learn",
        "pillow",
        "loss-landscapes",
        "diffusers",
        "torch-fidelity",
        "pandas",
    }
    code = (
        "import json, sys; from consistency_lab.store.results import environment; versions = environment()['versions'];"
        "loaded = [m for m in ('lpips', 'torchvision', 'sklearn', 'PIL', 'loss_landscapes', 'diffusers') if m in sys.modules];"
        "print(json.dumps([versions, loaded]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    versions, loaded = json.loads(done.stdout)
    assert loaded == []
    assert asked < set(versions)
    for name in asked - {"torch-fidelity", "diffusers"}:  # those two are extras
        assert versions[name] == importlib.metadata.version(name)
    # Whatever the package requires and computes with is in the list: what is left draws, parses, stores or downloads.
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    helpers = {
        "cattrs",
        "filelock",
        "jinja2",
        "matplotlib",
        "pooch",
        "requests",
        "safetensors",
        "seaborn",
        "tqdm",
        "tyro",
    }
    assert required - set(versions) == helpers


@pytest.mark.parametrize("attrs", [{}, {"provenance": "{"}, {"provenance": 3}, {"provenance": "3"}])
def test_a_dataset_without_provenance_says_so(attrs):
    with pytest.raises(StoreError, match="no provenance"):
        provenance(xr.Dataset(attrs=attrs))


def test_the_git_commit_is_that_of_the_package_and_not_of_the_folder_around_it(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "site" / "results.py"
    package.parent.mkdir()
    package.write_text("one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "__file__", str(package))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git_commit"] is None  # no checkout
    git("init")
    (tmp_path / "other").write_text("one")
    git("add", "other")
    git("commit", "-m", "something else")
    assert environment()["git_commit"] is None  # installed inside a checkout of something else
    git("add", "site/results.py")
    git("commit", "-m", "the package")
    commit = git("rev-parse", "HEAD")
    assert environment()["git_commit"] == commit
    elsewhere = tmp_path.parent / f"{tmp_path.name}-work"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert environment()["git_commit"] == commit
    package.write_text("two")
    assert environment()["git_commit"] == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert environment()["git_commit"] is None


def test_the_frame_is_tidy():
    ds = anything()
    frame = to_frame(ds)
    assert len(frame) == 3 * 4 * 5 * 2
    assert list(frame.columns[:4]) == ["pair", "t", "sample", "metric"]
    assert {"first", "log_snr", "distance", "null"} <= set(frame.columns)
    assert "score" not in frame
    row = frame.iloc[77]
    cell = ds.sel(pair=row["pair"], t=row["t"], metric=row["metric"]).isel(sample=row["sample"])
    assert row["distance"] == cell["distance"].item()
    assert row["log_snr"] == cell["log_snr"].item()
    assert list(to_frame(ds, "score").columns)[:3] == ["pair", "t", "metric"]
    assert len(to_frame(ds, "score")) == 3 * 4 * 2
    assert to_frame(xr.Dataset({"x": 1.5, "n": 2})).to_dict("records") == [{"x": 1.5, "n": 2}]


def test_a_frame_of_what_is_not_there_is_refused():
    with pytest.raises(StoreError, match="no variable 'scores'; it has distance, null"):
        to_frame(anything(), "scores")
    with pytest.raises(StoreError, match="nothing to tabulate"):
        to_frame(xr.Dataset(coords={"t": [0.0]}))


def test_csv_round_trips(tmp_path):
    ds = anything()
    save_frame(ds, tmp_path / "a" / "frame.csv")
    frame = to_frame(ds)
    read = pd.read_csv(tmp_path / "a" / "frame.csv").astype(frame.dtypes.to_dict())
    pd.testing.assert_frame_equal(read, frame, check_exact=True)
    save_frame(to_frame(ds, "score"), tmp_path / "score.csv")
    assert len(pd.read_csv(tmp_path / "score.csv")) == 24


def test_provenance_is_one_json_text_that_survives_the_file(tmp_path):
    ds = with_provenance(xr.Dataset({"x": ("a", [1.0])}), "test", text='"quotes" and\nlines', path="☃")
    save_result(ds, tmp_path / "r.nc")
    assert json.loads(load_result(tmp_path / "r.nc").attrs["provenance"]) == provenance(ds)
