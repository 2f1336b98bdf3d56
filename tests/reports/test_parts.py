"""Parts of results of every kind: drawn as the whole is, or refused in one sentence; never a traceback, never other numbers."""

import json
import re

import numpy as np
import pytest
import xarray as xr

import consistency_lab as cl
from consistency_lab.kinds.numbers import headline
from consistency_lab.kinds.registry import figures_of
from consistency_lab.plots import frames
from consistency_lab.store.results import load_result, save_result
from consistency_lab.store.shapes import _OLDER, whole

SAMPLER = cl.Sampler(steps=3)


@pytest.fixture(scope="module")
def made():
    """A real result of every probe, of models that took two steps."""
    images = cl.load_images("digits").take(range(40), "a few digits")
    small = {"network": "mlp(width=8, depth=1)", "steps": 2, "batch": 8, "device": "cpu", "progress": False}
    a, b, c = (cl.train(images, seed=seed, **small) for seed in range(3))
    tiny = {"count": 4, "bins": 2}
    difficulty = cl.probe_difficulty(a, images, detail=2, count=4, bins=4)
    line = cl.probe_landscape(a, images, points=5, **tiny)
    return {
        "comparison": cl.compare([a, b, c], count=6, levels=3, sampler=SAMPLER, images=images, metrics=("mse", "psnr")),
        "difficulty": difficulty,
        "structure": cl.probe_structure([a, b], images, count=4, levels=3, sampler=SAMPLER),
        "landscape": line,
        "plane": cl.probe_plane(a, images, points=5, **tiny),
        "curvature": cl.probe_curvature(a, images, eigenvalues=1, probes=2, steps=4, products=6, **tiny),
        "connectivity": cl.probe_connectivity(
            a, b, images, images, points=3, steps=2, samples=4, sampler=SAMPLER, **tiny
        ),
        "recipe": cl.Recipe.from_findings(difficulty, line).to_dataset(),
        "timesteps": cl.audit_timesteps(["uniform", "logit_normal"], cl.SCHEDULES.build("linear"), 20, points=3),
    }


KINDS = ("comparison", "difficulty", "structure", "landscape", "plane", "curvature", "connectivity", "recipe")


def parts(r):
    """What xarray makes of a result, by the words for it."""
    for dim, length in r.sizes.items():
        for name, index in {
            "first": 0, "last": -1, "first kept": [0], "half": slice(0, max(1, length // 2)), "none": slice(0, 0),
            "reversed": slice(None, None, -1),
        }.items():  # fmt: skip
            yield f"{dim} {name}", r.isel({dim: index})
        yield f"{dim} first dropped", r.isel({dim: 0}, drop=True)
    for name in r.coords:
        yield f"without coordinate {name}", r.drop_vars(name)
    for name in r.data_vars:
        yield f"without {name}", r.drop_vars(name)
    for name in r.attrs:
        less = r.copy()
        del less.attrs[name]
        yield f"without attribute {name}", less
    yield "transposed", r.transpose(*list(r.dims)[::-1])
    yield "kind alone", r.drop_attrs().assign_attrs(kind=r.attrs["kind"])
    yield "undefined", r.map(lambda x: x * np.nan if x.dtype.kind == "f" else x, keep_attrs=True)
    yield "infinite", r.map(lambda x: x + np.inf if x.dtype.kind == "f" else x, keep_attrs=True)


@pytest.mark.parametrize("kind", [*KINDS, "timesteps"])
def test_every_part_is_made_whole_or_refused(made, kind):
    r, refused = made[kind], 0
    for name, part in parts(r):
        try:
            again = whole(part)
        except cl.UserError:
            refused += 1
            continue
        kept = [v for v in again.variables if v in r.variables]
        if "attribute" not in name and "kind alone" not in name:
            assert all(again[v].dims == r[v].dims for v in kept), name
    assert refused > 3


@pytest.mark.parametrize("kind", [*KINDS, "timesteps"])
def test_what_a_part_may_choose_is_in_the_result_and_known_of_older_ones(made, kind):
    shape = json.loads(made[kind].attrs["shape"])
    assert shape.pop("choices") == sorted(_OLDER[kind])
    older = made[kind].assign_attrs(shape=json.dumps(shape))
    for dim, length in older.sizes.items():
        if length > 1 and dim not in _OLDER[kind]:
            with pytest.raises(cl.UserError, match=rf"taken over all {length} entries of '{dim}'"):
                whole(older.isel({dim: [0]}))


@pytest.mark.parametrize("kind", [*KINDS, "timesteps"])
def test_a_part_is_drawn_or_refused(made, kind):
    """The first figure alone: all begin alike, and drawing takes its time."""
    r, drawn = made[kind], 0
    for name, part in parts(r):
        if name.endswith(("half", "reversed", "last", "none")) or name.startswith("without "):
            continue
        try:
            next(iter(figures_of(part)))
            drawn += 1
        except cl.UserError:
            continue
    assert drawn > 2


@pytest.mark.parametrize(
    ("kind", "one", "kept"),
    [
        ("comparison", lambda r: r.sel(metric="mse"), lambda r: r.sel(metric=["mse"])),
        ("comparison", lambda r: r.isel(t=-1), lambda r: r.isel(t=[-1])),
        ("comparison", lambda r: r.isel(t=-1).sel(metric="psnr"), lambda r: r.isel(t=[-1]).sel(metric=["psnr"])),
        ("comparison", lambda r: r.sortby("t"), lambda r: r),
        ("comparison", lambda r: r.isel(sample=[2, 0, 1, 5, 4, 3]), lambda r: r),
        ("comparison", lambda r: xr.concat([r.sel(metric=["mse"]), r.sel(metric=["psnr"])], "metric", data_vars="all"), lambda r: r),
        ("difficulty", lambda r: r.sel(units="eps"), lambda r: r.sel(units=["eps"])),
        ("difficulty", lambda r: r.sel(definition="KL rate"), lambda r: r.sel(definition=["KL rate"])),
        ("structure", lambda r: r.isel(t=0, model=1), lambda r: r.isel(t=[0], model=[1])),
        ("landscape", lambda r: r.isel(t=0), lambda r: r.isel(t=[0])),
        ("plane", lambda r: r.isel(t=0).transpose(), lambda r: r.isel(t=[0])),
        ("curvature", lambda r: r.sel(part="all", operator="hessian"), lambda r: r.sel(part=["all"], operator=["hessian"])),
        ("connectivity", lambda r: r.isel(path=1), lambda r: r.isel(path=[1])),
    ],
)  # fmt: skip
def test_one_entry_is_the_same_as_a_list_of_one(made, kind, one, kept):
    restored = whole(one(made[kind]))
    assert restored.identical(whole(kept(made[kind])))


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda r: r.isel(sample=slice(0, 3)), "taken over all 6 entries of 'sample' and it holds 3.*with that count"),
        (lambda r: r.isel(sample=0), "taken over all 6 entries of 'sample' and it holds 1"),
        (lambda r: r.isel(model=[0, 1]), "all 3 entries of 'model' and it holds 2.*compare those models by themselves"),
        (lambda r: r.isel(model=[2, 1, 0]), "pairs that are not all of theirs"),
        (lambda r: r.isel(pair=0), "all 3 entries of 'pair' and it holds 1.*compare those two models"),
        (lambda r: r.isel(t=0), "ends at t = 1.*keep that time as well"),
        (lambda r: r.mean("sample", keep_attrs=True), "'distance' .* has lost its dimension 'sample'"),
        (lambda r: r.drop_vars("log_snr"), "lost its coordinate 'log_snr'"),
        (lambda r: r.drop_attrs(), "drop the attributes"),
        (lambda r: r["score"], "one variable of a result"),
        (lambda r: r.isel(metric=[]), "holds nothing along 'metric'"),
        (lambda r: r.isel(shown=[1, 2]), "all 6 entries of 'shown' and it holds 2"),
        (lambda r: xr.concat([r, r.assign(images=r["images"] + 1)], "metric", data_vars="all"), "put together"),
    ],
)
@pytest.mark.parametrize("look", [cl.show, cl.explore, lambda r: cl.report([r], "never.html")])
def test_what_does_not_belong_together_is_refused(made, cut, said, look, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cl.UserError, match=said):
        look(cut(made["comparison"]))
    assert list(tmp_path.iterdir()) == []


def test_one_metric_says_what_the_whole_says(made):
    r = made["comparison"]
    assert cl.show(r.sel(metric="mse")).sentence == cl.show(r).sentence
    assert cl.explore(r.sel(metric="mse")).children[2].options == (("mse", "mse"),)
    with pytest.raises(cl.UserError, match="unknown metric of this comparison 'psnr'"):
        frames.overview(r.sel(metric="mse"), "psnr")


def test_a_report_of_one_metric_at_the_end_has_the_same_score(made, tmp_path):
    r = made["comparison"]
    page = cl.report([r.sel(metric="mse").isel(t=-1)], tmp_path / "part.html")
    score = json.loads(page.with_suffix(".json").read_text())["headline"]["score"]
    assert score == headline(r.sel(metric=["mse"])).score == float(r["family_score"].sel(metric="mse")[-1])


def test_a_part_survives_the_disk(made, tmp_path):
    save_result(made["comparison"].sel(metric="mse"), tmp_path / "part.nc")
    read = load_result(tmp_path / "part.nc")
    assert whole(read).identical(whole(made["comparison"].sel(metric=["mse"])))


def test_an_older_result_that_was_cut_says_how_to_keep_the_dimension(results):
    older, other = results.comparison(models=2), results.difficulty()
    del older.attrs["shape"], other.attrs["shape"]
    with pytest.raises(cl.UserError, match=re.escape("cut at one metric; keep the dimension: r.sel(metric=['mse'])")):
        cl.show(older.sel(metric="mse"))
    assert whole(other).identical(other)
