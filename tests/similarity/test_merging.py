"""Blocks that other processes have measured become the comparison that one process makes."""

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

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


class Later(Executor):
    """Does all of its work when the last piece has come, last piece first, and counts it."""

    def __init__(self, pieces):
        self.pieces, self.waiting, self.done = pieces, [], 0

    def submit(self, work, *args):
        self.waiting.append((future := Future(), work, args))
        if len(self.waiting) == self.pieces:
            for other, each, given in reversed(self.waiting):
                other.set_result(each(*given))
                self.done += 1
        return future


def same(a, b):
    for name in {*a.variables, *b.variables}:
        xr.testing.assert_identical(a[name], b[name])
    assert {k: v for k, v in a.attrs.items() if k != "created"} == {k: v for k, v in b.attrs.items() if k != "created"}


@pytest.mark.parametrize("labels", [None, [0, 1, 2]])
def test_the_result_is_that_of_one_process_to_the_bit_whatever_is_finished_first(digits, labels):
    models = gaussians(0, 1, 2, classes=10 if labels else 0)
    options = {**FEW, "images": digits, "labels": labels}
    alone = compare(models, **options)
    pool = Later(alone.attrs["blocks"] if "blocks" in alone.attrs else len(set(alone["block"].values.tolist())))
    same(alone, compare(models, **options, pool=pool))
    assert pool.done > 2


def test_what_is_one_block_is_measured_here(digits):
    pool = Later(1)
    options = {**FEW, "block": None, "references": ()}
    same(compare(gaussians(0, 1), **options), compare(gaussians(0, 1), **options, pool=pool))
    assert pool.done == 0


def test_a_model_that_gives_no_numbers_is_left_out_there_too(digits):
    models = gaussians(0, 1, 2)
    models[1].denoiser.mean.mul_(torch.nan)
    with ThreadPoolExecutor(1) as pool:
        same(compare(models, **FEW), compare(models, **FEW, pool=pool))


def test_what_cannot_be_sent_is_refused_in_a_sentence(digits):
    models = gaussians(0, 1)
    models[0].denoiser.hook = lambda x: x
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match="cannot be sent to another process"):
        compare(models, **FEW, pool=pool)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(digits):
    with ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)
    ) as pool:
        same(compare(gaussians(0, 1, 2), **FEW), compare(gaussians(0, 1, 2), **FEW, pool=pool))
