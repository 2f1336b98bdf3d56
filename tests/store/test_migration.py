"""Results and rows of earlier versions, which named intervals otherwise and kept single numbers in attributes."""

import json

import numpy as np
import pytest
import xarray as xr

from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.paper.rows import Rows
from consistency_lab.store.migration import migrated, migrated_values
from consistency_lab.store.results import load_result, with_provenance
from consistency_lab.store.shapes import lost_variables, whole

OLD_LINE = {
    "roughness": 0.1,
    "roughness_low": 0.05,
    "roughness_high": 0.2,
    "roughness_span": 1.0,
    "direction_norm": 3.5,
}


def old_landscape():
    line = xr.Dataset({"loss": ("position", [3.0, 1.0, 2.0])}, {"position": [-1.0, 0.0, 1.0]})
    return with_provenance(line.assign_attrs(model="m", **OLD_LINE), "landscape")


def old_comparison():
    family = {
        name: (("t", "metric"), [[x]])
        for name, x in (("family_score", 0.5), ("family_low", 0.25), ("family_high", 0.75))
    }
    return with_provenance(xr.Dataset(family, {"t": [0.0], "metric": ["mse"]}), "comparison")


def test_an_old_file_is_read_with_the_names_and_variables_of_now(tmp_path):
    path = tmp_path / "old.nc"
    old_landscape().to_netcdf(path, engine="scipy")  # as the old version wrote it: `save_result` would, too
    line = load_result(path)
    assert interval_of(line, "roughness") == (0.1, 0.05, 0.2)
    assert float(line["direction_norm"]) == 3.5
    assert set(line.attrs) == {"model", "kind", "provenance", "shape"}
    assert json.loads(line.attrs["shape"])["dims"]["roughness_low"] == []
    assert lost_variables(line.drop_vars("roughness")) == ["roughness"]
    assert migrated(line) is line


def test_an_old_result_in_memory_is_made_whole_by_its_new_names():
    found = whole(old_comparison().isel(t=-1))
    assert found["family_score_low"].dims == ("t", "metric")
    assert [part.item() for part in interval_of(found, "family_score")] == [0.5, 0.25, 0.75]
    assert not {"family_low", "family_high"} & set(found.variables)
    assert lost_variables(found) == []
    assert (
        lost_variables(old_comparison())
        != lost_variables(found.drop_vars("family_score_high"))
        == ["family_score_high"]
    )


def test_a_number_of_the_users_own_stays_an_attribute():
    assert migrated(old_landscape().assign_attrs(temperature=2.0)).attrs["temperature"] == 2.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"mse_score": 1, "mse_low": 0, "mse_high": 2}, {"mse_score": 1, "mse_score_low": 0, "mse_score_high": 2}),
        ({"mse_along_t": {"score": [1], "low": [0], "high": [2]}},
         {"mse_along_t": {"score": [1], "score_low": [0], "score_high": [2]}}),
        ({"definitions": [{"peak_t": 1, "peak_from": 0, "peak_to": 2, "share_below": 1, "share_low": 0, "share_high": 2}]},
         {"definitions": [dict.fromkeys(interval_names("peak_t", "share_below"))
                          | {"peak_t": 1, "peak_t_low": 0, "peak_t_high": 2}
                          | {"share_below": 1, "share_below_low": 0, "share_below_high": 2}]}),
        ({"rho": 1, "low": 0, "high": 2}, {"rho": 1, "rho_low": 0, "rho_high": 2}),
        ({"frechet": 1, "frechet_low": 0, "frechet_high": 2}, {"frechet": 1, "frechet_low": 0, "frechet_high": 2}),
    ],
)  # fmt: skip
def test_values_of_old_rows_are_named_as_those_of_new_ones(old, new):
    assert migrated_values(old) == new
    assert migrated_values(new) == new


def test_old_rows_are_found_by_the_same_key(tmp_path):
    path, spec = tmp_path / "rows.jsonl", {"row": "family"}
    rows = Rows(path)
    rows.row(spec, lambda: {"mse_score": 1.0, "mse_low": 0.0, "mse_high": np.nan})
    assert set(Rows(path).find(spec)) == {"mse_score", "mse_score_low", "mse_score_high"}
