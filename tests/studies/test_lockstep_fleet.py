"""Fleets in lock-step: who is trained with whom, and that their models are those of lock-steps by themselves."""

import pytest
import torch

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.errors import UserError
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import Fleet, train_fleet
from consistency_lab.training.lockstep import MOST, in_lockstep, lockstep_groups

CPU, SHAPE = torch.device("cpu"), (1, 8, 8)
TINY = cl.TrainingSettings(network="mlp(width=16, depth=1)", steps=4, batch=8, snapshots=0)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.denoiser.parameters(), b.denoiser.parameters(), strict=True))


def test_small_networks_are_grouped_on_a_gpu_and_never_on_a_processor_unless_told():
    jobs = {f"s{k}": TINY.replace(seed=k) for k in range(MOST + 3)}
    jobs |= {"wide": TINY.replace(network="mlp(width=24)"), "gan": cl.GANSettings(steps=4)}
    assert in_lockstep(jobs, SHAPE, CPU) == jobs
    on_gpu = in_lockstep(jobs, SHAPE, torch.device("cuda"))
    assert on_gpu["s1"].lockstep == f"2/{MOST}"
    assert on_gpu[f"s{MOST}"].lockstep == "1/3"
    assert on_gpu["wide"] == jobs["wide"]
    assert on_gpu["gan"] == jobs["gan"]
    assert [len(group) for group in lockstep_groups(on_gpu)] == [MOST, 3]
    large = {f"l{k}": TINY.replace(network="mlp(width=2000, depth=2)", seed=k) for k in range(2)}
    assert in_lockstep(large, SHAPE, torch.device("cuda")) == large
    told = in_lockstep(jobs, SHAPE, CPU, 4)
    assert [told[f"s{k}"].lockstep for k in range(5)] == ["1/4", "2/4", "3/4", "4/4", "1/4"]
    assert in_lockstep(told, SHAPE, CPU, 2) | {"wide": told["wide"]} == told
    with pytest.raises(UserError, match="one model or more"):
        in_lockstep(jobs, SHAPE, CPU, 0)


def test_a_fleet_in_lock_step_trains_each_to_the_bits_of_its_place(tmp_path):
    images = cl.load_images("digits")
    jobs = {f"s{k}": TINY.replace(seed=k) for k in range(3)}
    said = []
    models = train_fleet(images, jobs, Store(tmp_path), lockstep=2, say=said.append)
    assert said == ["trained s0", "trained s1", "trained s2"]
    for k, place in enumerate(("1/2", "2/2", "")):
        alone = cl.train(images, settings=TINY.replace(seed=k, lockstep=place), device="cpu", progress=False)
        assert equal(models[f"s{k}"], alone)
    again = Fleet(images, jobs, Store(tmp_path), lockstep=2, say=lambda line: pytest.fail("trained again"))
    assert equal(again.models(["s1"])[0], models["s1"])


def test_the_command_line_trains_seeds_at_once(tmp_path, capsys):
    told = [
        "train",
        "--network",
        "mlp(width=16, depth=1)",
        "--steps",
        "4",
        "--batch",
        "8",
        "--seeds",
        "0-1",
        "--at-once",
        "2",
    ]
    assert main([*told, "--store", str(tmp_path), "--device", "cpu"]) == 0
    runs = Store(tmp_path).runs()
    assert sorted(run.spec["settings"]["lockstep"] for run in runs) == ["1/2", "2/2"]
    assert all(run.done for run in runs)
