"""What the probes would cost, counted in images that pass the network instead of in seconds."""

from types import SimpleNamespace

import pytest
from torch.nn.modules.module import register_module_forward_hook

from consistency_lab.contrast.networks import DenseEncoder
from consistency_lab.contrast.settings import GANSettings
from consistency_lab.data.sources import load_images
from consistency_lab.networks.mlp import MLP
from consistency_lab.paper import why_cost
from consistency_lab.paper.rows import Rows
from consistency_lab.paper.why import PROBES, Why
from consistency_lab.store.runs import Store
from consistency_lab.studies import cost, probe_cost
from consistency_lab.studies.fleet import Fleet
from consistency_lab.training.settings import TrainingSettings

JOBS = {
    f"{kind}-{seed}": settings.replace(seed=seed)
    for seed in range(2)
    for kind, settings in {
        "mlp": TrainingSettings(network="mlp(width=8, depth=1)", steps=40, batch=32, snapshots=3),
        "gan": GANSettings(
            generator="dense(latent=4, width=8, depth=1)", discriminator="dense(width=8, depth=1)", steps=40, batch=32
        ),
    }.items()
}
MEMBERS = {kind: [f"{kind}-0", f"{kind}-1"] for kind in ("mlp", "gan")}


@pytest.fixture
def passed(monkeypatch):
    """Images that have passed a network: what the clock shows."""
    total = [0.0]

    def count(module, inputs, output):
        if isinstance(module, MLP | DenseEncoder):
            total[0] += len(output)

    clock = SimpleNamespace(perf_counter=lambda: total[0])
    for module in (cost, probe_cost):
        monkeypatch.setattr(module, "time", clock)
    handle = register_module_forward_hook(count)
    yield total
    handle.remove()


def test_probes_cost_what_is_foretold_and_nothing_once_they_are_done(passed, tmp_path):
    images, held_out = load_images("digits").split(300, 60, seed=0)
    fleet = Fleet(images, JOBS, Store(tmp_path / "runs"))
    why = Why(images, held_out, fleet.store, Rows(tmp_path / "rows.jsonl"), count=8, bins=3)
    families = {name: fleet.family(name, names) for name, names in MEMBERS.items()}
    before = why_cost.why_cost(why, fleet, MEMBERS)
    assert all(before[name][0] > 0 for name in JOBS)
    fleet.models(list(JOBS))
    for name, family in families.items():
        for probe in PROBES if name == "mlp" else ("line", "between", "curvature"):
            start = passed[0]
            why.table([family], [probe])
            took, foretold = passed[0] - start, before[f"{probe} of {name}"][1]
            assert 0.75 * foretold <= took <= 1.25 * foretold, (name, probe)
    after = why_cost.why_cost(why, fleet, MEMBERS)
    assert set(after) == set(before)
    assert set(after.values()) == {(0.0, 0.0)}


def test_a_missing_row_costs_itself_alone(passed, tmp_path):
    images, held_out = load_images("digits").split(300, 60, seed=0)
    fleet = Fleet(images, JOBS, Store(tmp_path / "runs"))
    why = Why(images, held_out, fleet.store, Rows(tmp_path / "rows.jsonl"), count=8, bins=3)
    families = [fleet.family(name, names) for name, names in MEMBERS.items()]
    for probe, family, part in why.asked(families):
        if (probe, family.name) != ("line", "mlp"):
            why.rows.row(why._spec(probe, family, part), lambda: {"found": 1})
    left = {name for name, each in why_cost.why_cost(why, fleet, MEMBERS).items() if each != (0.0, 0.0)}
    assert left == {"mlp-0", "mlp-1", "line of mlp"}
    assert not (tmp_path / "runs").exists()  # what was timed is not kept
