"""Things of the wrong type where a result, a path or a name belongs: one sentence each."""

import pytest
import xarray as xr

import consistency_lab as cl
from consistency_lab.interop.export import export_diffusers

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
    with pytest.raises(cl.UserError, match="over all 16 entries of 't' and it holds 1"):
        cl.Recipe.from_findings(ds)


@pytest.fixture(scope="module")
def few():
    """A hundred digits, two models and a GAN that hardly learned anything."""
    images = cl.load_images("digits").take(range(100), "few")
    small = {"network": "mlp(width=8, depth=1)", "steps": 2, "batch": 16}
    a, b = (cl.train(images, seed=seed, **small) for seed in (0, 1))
    return images, a, b, cl.train_gan(images, steps=2, batch=16)


NOISE = cl.SharedNoise(0)
SLIPS = {
    "count": lambda s, a, b, gan: cl.compare([a, b], count=float("inf")),
    "count in text": lambda s, a, b, gan: cl.compare([a, b], count="8"),
    "count as a float": lambda s, a, b, gan: cl.probe_difficulty(a, s, count=8.0),
    "levels": lambda s, a, b, gan: cl.compare([a, b], count=4, levels=None),
    "shown": lambda s, a, b, gan: cl.compare([a, b], count=4, shown=float("nan")),
    "sampler": lambda s, a, b, gan: cl.compare([a, b], count=4, sampler=3),
    "sampler of a probe": lambda s, a, b, gan: cl.probe_structure(a, s, count=4, sampler=3),
    "steps": lambda s, a, b, gan: cl.Sampler("ddim", None),
    "samples of a probe": lambda s, a, b, gan: cl.probe_structure(a, s, count=None),
    "bins": lambda s, a, b, gan: cl.probe_difficulty(a, s, count=8, bins="a"),
    "points": lambda s, a, b, gan: cl.probe_landscape(a, s, count=4, points=None),
    "points of a plane": lambda s, a, b, gan: cl.probe_plane(a, s, count=4, points=None),
    "span": lambda s, a, b, gan: cl.probe_landscape(a, s, count=4, span="a"),
    "towards": lambda s, a, b, gan: cl.probe_landscape(a, s, towards=3),
    "a model for images": lambda s, a, b, gan: cl.probe_landscape(a, b),
    "probes": lambda s, a, b, gan: cl.probe_curvature(a, s, count=4, probes=None),
    "recipe of a training": lambda s, a, b, gan: cl.train(s, recipe=3, steps=1, batch=16),
    "settings": lambda s, a, b, gan: cl.train(s, settings=3),
    "device": lambda s, a, b, gan: cl.train(s, device=float("nan"), steps=1, batch=16),
    "seed": lambda s, a, b, gan: cl.train(s, seed=10**23, steps=1, batch=16),
    "beta": lambda s, a, b, gan: cl.train(s, optimizer="adam(beta1=1.5)", steps=1, batch=16),
    "momentum": lambda s, a, b, gan: cl.train(s, optimizer="sgd(momentum=2)", steps=1, batch=16),
    "images": lambda s, a, b, gan: cl.load_images(None),
    "model": lambda s, a, b, gan: cl.load(None),
    "indices of a set": lambda s, a, b, gan: s.take("a", "b"),
    "no indices of a set": lambda s, a, b, gan: s.batch(None),
    "device of a set": lambda s, a, b, gan: s.to("moon"),
    "indices of noise": lambda s, a, b, gan: NOISE.initial(3, (1, 8, 8)),
    "shape of noise": lambda s, a, b, gan: NOISE.initial([1], "a"),
    "noise": lambda s, a, b, gan: a.generate(3, [0]),
    "indices": lambda s, a, b, gan: a.generate(NOISE, 5),
    "labels": lambda s, a, b, gan: cl.compare([a, b], count=4, labels="a"),
    "references": lambda s, a, b, gan: cl.compare([a, b], count=4, images=s, references=["gausian"]),
    "a generator": lambda s, a, b, gan: cl.wrap_generator(3, shape=(1, 8, 8), name="a"),
    "a GAN in place of a diffusion model": lambda s, a, b, gan: export_diffusers(gan, "out"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_sentence(few, slip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cl.UserError) as caught:
        SLIPS[slip](*few)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sampler_may_be_written_as_text(few):
    _, a, b, _ = few
    text, whole = (
        cl.compare([a, b], count=4, sampler=sampler) for sampler in ("heun(steps=3)", cl.Sampler("heun", steps=3))
    )
    assert text["distance"].equals(whole["distance"])
    assert (a.generate(NOISE, [0], "ddim(steps=2)") == a.generate(NOISE, [0], cl.Sampler(steps=2))).all()
