import dataclasses

import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.presets import demo_plan
from consistency_lab.store.runs import Store
from consistency_lab.studies import demo
from consistency_lab.training.settings import TrainingSettings


def small_plan():
    plan = demo_plan("digits")
    runs = {
        name: TrainingSettings.of(network=network, steps=25, batch=32, snapshots=1, seed=seed)
        for seed, (name, network) in enumerate(
            {"a": "mlp(width=16, depth=1)", "b": "mlp(width=16, depth=1)", "c": "mlp(width=8, depth=1)"}.items()
        )
    }
    return dataclasses.replace(plan, runs=runs, pilot="c", count=16, sampler={"steps": 8}, held_out=300)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    return [
        demo.run_demo(small_plan(), Store(tmp_path_factory.mktemp("demo")), device="cpu", progress=False)
        for _ in range(2)
    ]


def test_two_fresh_stores_give_the_same_bits(twice):
    first, second = (done.results for done in twice)
    assert first.keys() == second.keys()
    for name, result in first.items():
        for variable in result.variables:
            assert np.array_equal(
                result[variable].values, second[name][variable].values, equal_nan=result[variable].dtype.kind == "f"
            ), (name, variable)


def test_everything_that_was_promised_is_there(twice):
    done = twice[0]
    kinds = [result.attrs["kind"] for result in done.results.values()]
    assert {"comparison", "difficulty", "landscape", "recipe", "training"} == set(kinds)
    assert list(done.models) == ["a", "b", "c", "c-recipe"]
    assert done.models["c-recipe"].facts["spec"]["settings"]["timesteps"]["name"] == "density"


def test_a_second_demo_computes_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = demo.run_demo(small_plan(), store, device="cpu", progress=False)
    for name in ("compare", "probe_difficulty", "probe_landscape"):
        monkeypatch.setattr(demo, name, lambda *_, **__: pytest.fail("computed twice"))
    monkeypatch.setattr("consistency_lab.training.run_io._train_in", lambda *_: pytest.fail("trained twice"))
    second = demo.run_demo(small_plan(), store, device="cpu", progress=False)
    assert np.array_equal(first.results["comparison"]["distance"], second.results["comparison"]["distance"])


def test_images_are_not_trained_on_and_held_out_at_once():
    images, held_out = demo.demo_data(demo_plan("digits"))
    assert len(images) + len(held_out) == 1797
    rows = np.concatenate([images.all().flatten(1).numpy(), held_out.all().flatten(1).numpy()])
    from consistency_lab.data.sources import load_images

    whole = load_images("digits").all().flatten(1).numpy()
    assert sorted(map(bytes, rows)) == sorted(map(bytes, whole))
    with pytest.raises(UserError, match="held out"):
        demo.demo_data(dataclasses.replace(demo_plan("digits"), held_out=5000))
