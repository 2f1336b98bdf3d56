import json

import numpy as np
import pytest

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.data.sources import load_images
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.why import PROBES, Why, values_of
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import Fleet
from consistency_lab.training.settings import TrainingSettings

SMALL = {"steps": 60, "batch": 32}
KINDS = {
    "mlp": TrainingSettings(network="mlp(width=12, depth=1)", snapshots=3, **SMALL),
    "gan": GANSettings(
        generator="dense(latent=4, width=12, depth=1)", discriminator="dense(width=8, depth=1)", **SMALL
    ),
    "vae": VAESettings(autoencoder="conv(latent=3, width=4)", **SMALL),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("why")
    images, held_out = load_images("digits").split(1400, 397, seed=0)
    jobs = {f"{kind}-{seed}": settings.replace(seed=seed) for kind, settings in KINDS.items() for seed in range(2)}
    fleet = Fleet(images, jobs, Store(folder / "runs"))
    families = [fleet.family(kind, [f"{kind}-0", f"{kind}-1"]) for kind in KINDS]
    rows = Rows(folder / "rows.jsonl")
    why = Why(images, held_out, Store(folder / "runs"), rows, count=8, bins=3)
    return why, families, why.table(families)


def test_every_probe_answers_for_every_family_that_it_can_ask(asked):
    _, _, table = asked
    found = {(row["probe"], row["family"]) for _, row in table.iterrows()}
    scale_free = {(p, f) for p in ("line", "between", "curvature") for f in ("mlp", "gan", "gan discriminator", "vae")}
    assert found == scale_free | {(probe, "mlp") for probe in PROBES}


def test_numbers_come_with_intervals_that_hold_them(asked):
    table = asked[2].set_index(["probe", "family"])
    cases = [("line", "relative_curvature"), ("between", "relative_barrier"), ("curvature", "hessian_relative_trace")]
    for probe, name in cases:
        for family in ("mlp", "gan", "gan discriminator", "vae"):
            low, value, high = (table.loc[(probe, family), f"{name}{end}"] for end in ("_low", "", "_high"))
            assert low <= value <= high, (probe, family)
    connected = table.loc[("connectivity", "mlp")]
    assert connected["consistency_low"] <= connected["consistency"] <= connected["consistency_high"]
    assert 0 <= table.loc[("curvature", "mlp"), "hessian_negative_share"] <= 1
    assert table.loc[("curvature", "mlp"), "gauss_newton_negative_share"] < 0.02  # it has no negative eigenvalues
    assert {row["definition"] for row in table.loc[("difficulty", "mlp"), "definitions"]} >= {"eps error", "x0 error"}


def test_both_ends_of_a_line_between_generators_meet_one_opponent(asked):
    why, families, _ = asked
    gan = families[1]
    result = why.result("between", gan, "generator")
    first, second = gan.models()
    subject = why.subject(first, "generator")
    assert float(result["loss"].sel(position=0.0)) == pytest.approx(float(subject.losses().mean()), rel=1e-9)
    moved = subject.asked_of(second.module.generator, "other")
    at_end = float(result["loss"].isel(position=np.abs(result["position"].values - 1).argmin()))
    assert at_end == pytest.approx(float(moved.losses().mean()), rel=1e-5)


def test_rows_are_json_and_go_on(asked, monkeypatch):
    why, families, table = asked
    for line in why.rows.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in a row"))
    monkeypatch.setattr(Why, "result", lambda *_: pytest.fail("probed again"))
    again = Why(why.images, why.held_out, why.store, Rows(why.rows.path), count=8, bins=3).table(families)
    assert again.to_json() == table.to_json()


def test_undefined_numbers_are_none(asked):
    why, families, _ = asked
    result = why.result("line", families[0])
    assert values_of(result)["barrier"] is None  # there is one model only
