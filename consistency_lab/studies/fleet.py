"""Many models, trained one after another or side by side in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import KIND, load_model, train, training_spec


def train_fleet(
    images: ImageSet,
    jobs: Mapping[str, TrainingSettings],
    store: Store,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, DiffusionModel]:
    """Train every job that the store does not have, and load them all.

    Args:
        images: the training set of every job.
        jobs: name -> settings.
        store: where runs are kept; a stopped fleet goes on.
        device: of every job.
        workers: processes; each gets an equal share of the CPU's threads. Results depend on the threads of a run by rounding alone.
        say: is told when a job is done.

    Returns:
        name -> model, in the order of the jobs.

    Raises:
        UserError: fewer than one worker, or what `train` refuses.
    """
    if workers < 1:
        raise UserError(f"a fleet needs at least one worker, not {workers}.")
    store.check()
    place = torch.device(device)
    runs = {name: store.run(KIND, name, training_spec(images, settings, place)) for name, settings in jobs.items()}
    missing = [name for name, run in runs.items() if not run.done]
    if workers == 1 or len(missing) < 2:
        for name in missing:
            train(images, name=name, settings=jobs[name], store=store, device=place, progress=False)
            say(f"trained {name}")
    else:
        threads = max(1, (os.cpu_count() or 1) // workers)
        # Forked children would share the locks of torch's thread pools; spawned ones begin clean.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            arguments = [(images, name, jobs[name], str(store.root), str(place), threads) for name in missing]
            for future in as_completed([pool.submit(_train_one, *each) for each in arguments]):
                say(f"trained {future.result()}")
    return {name: load_model(run, device=place, name=name) for name, run in runs.items()}


def _train_one(images: ImageSet, name: str, settings: TrainingSettings, root: str, device: str, threads: int) -> str:
    torch.set_num_threads(threads)
    train(images, name=name, settings=settings, store=root, device=device, progress=False)
    return name
