"""Blocks that other processes have measured become the comparison that one process makes."""

import pickle

import pytest
import torch
import xarray as xr

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.similarity.compare import compare
from consistency_lab.studies.executors import executor_of

FEW = {"count": 30, "sampler": Sampler(steps=3), "levels": 3, "shown": 4, "block": 8}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


def gaussians(*seeds, classes=0):
    halves = [load_images("digits").split(898, 899, seed=seed)[0] for seed in seeds]
    schedule = SCHEDULES.build("linear")
    return [
        DiffusionModel(f"g{s}", GaussianDenoiser.fit(h.all(), schedule), classes=classes)
        for s, h in zip(seeds, halves, strict=True)
    ]


class Later:
    """Does the last piece first, each as a process would: with what pickling leaves of it."""

    def __init__(self, alone=False):
        self.done, self.alone = 0, alone

    def here(self, jobs, device):
        return self.alone

    def run(self, function, jobs, shared, device):
        shared = pickle.loads(pickle.dumps(shared))
        for name, arguments in reversed(jobs.items()):
            self.done += 1
            yield name, pickle.loads(pickle.dumps(function(*shared, *arguments, device)))


def same(a, b):
    for name in {*a.variables, *b.variables}:
        xr.testing.assert_identical(a[name], b[name])
    assert {k: v for k, v in a.attrs.items() if k != "created"} == {k: v for k, v in b.attrs.items() if k != "created"}


@pytest.mark.parametrize("labels", [None, [0, 1, 2]])
def test_the_result_is_that_of_one_process_to_the_bit_whatever_is_finished_first(digits, labels):
    models = gaussians(0, 1, 2, classes=10 if labels else 0)
    options = {**FEW, "images": digits, "labels": labels}
    alone = compare(models, **options)
    workers = Later()
    same(alone, compare(models, **options, executor=workers))
    assert workers.done == len(set(alone["block"].values.tolist())) > 2


def test_what_is_one_block_is_measured_here(digits):
    workers = Later()
    options = {**FEW, "block": None, "references": ()}
    same(compare(gaussians(0, 1), **options), compare(gaussians(0, 1), **options, executor=workers))
    assert workers.done == 0


def test_a_model_that_gives_no_numbers_is_left_out_there_too(digits):
    models = gaussians(0, 1, 2)
    models[1].denoiser.mean.mul_(torch.nan)
    same(compare(models, **FEW), compare(models, **FEW, executor=Later()))


def test_what_cannot_be_sent_is_refused_in_a_sentence(digits):
    models = gaussians(0, 1)
    models[0].denoiser.hook = lambda x: x
    with pytest.raises(UserError, match="cannot be sent to another process"):
        compare(models, **FEW, executor=Later())
    alone = Later(alone=True)
    assert compare(models, **FEW, executor=alone).sizes["sample"] == FEW["count"]  # by itself nothing is sent
    assert alone.done == 0


@pytest.mark.slow
def test_two_processes_measure_what_one_does(digits, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2 * torch.get_num_threads())  # as many threads each as here
    same(compare(gaussians(0, 1, 2), **FEW), compare(gaussians(0, 1, 2), **FEW, executor=executor_of("local", 2)))
