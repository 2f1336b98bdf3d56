"""Things of the wrong type where a result, a path or a name belongs: one sentence each."""

import pytest
import xarray as xr

import consistency_lab as cl

WRONG = [None, 1, float("nan"), b"x", [], {}, object()]
CALLS = {
    "show": cl.show,
    "explore": cl.explore,
    "report": lambda x: cl.report(x, "r.html"),
    "report of": lambda x: cl.report([x], "r.html"),
    "report to": lambda x: cl.report([xr.Dataset(attrs={"kind": "recipe"})], x),
    "save": lambda x: cl.save_result(x, "r.nc"),
    "save to": lambda x: cl.save_result(xr.Dataset({"a": 1}), x),
    "load": cl.load_result,
    "run": cl.load_model,
    "store": cl.Store,
    "recipe": cl.Recipe.from_findings,
    "recipe to": lambda x: cl.Recipe.paper().save(x),
    "table": cl.difficulty_table,
    "correlations": cl.difficulty_correlations,
    "metric": cl.METRICS.build,
    "sampler": cl.Sampler,
}


@pytest.mark.parametrize("call", CALLS)
def test_the_wrong_type_is_one_sentence(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in WRONG:
        with pytest.raises(cl.UserError) as caught:
            CALLS[call](wrong)
        assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_not_made_of_some_of_the_times(results):
    ds = results.difficulty().isel(t=3)
    with pytest.raises(cl.UserError, match="cut at one t"):
        cl.Recipe.from_findings(ds)
