"""Jobs for workers that die; imported by name in the worker."""

import contextlib
import os
import signal
import time
from pathlib import Path

import torch

from consistency_lab.errors import UserError
from consistency_lab.store import mirror
from consistency_lab.studies import fleet
from consistency_lab.training import run_io

train_job = fleet.train_job  # as it is before a test puts another in its place
TRACE, MARK = "MORTAL_TRACE", "MORTAL_MARK"  # files, named in the environment that workers inherit
EVERY = 25  # steps between two records, and here between two checkpoints


def _traced(after_record, *arguments):
    """`train_job` that stores its state at every record, notes each record in a file, and calls ``after_record(name, step)``."""
    seconds, watched = run_io._CHECKPOINT_SECONDS, run_io._watched

    def noted(loop, name, *more):
        for record in watched(loop, name, *more):
            if record is None:  # before each step
                yield None
                continue
            with open(os.environ[TRACE], "a") as file:
                file.write(f"{name} {record['step']}\n")
            yield record  # it is logged and stored before the next is asked for
            after_record(name, record["step"])

    run_io._CHECKPOINT_SECONDS, run_io._watched = -1.0, noted
    try:
        train_job(*arguments)
    finally:
        run_io._CHECKPOINT_SECONDS, run_io._watched = seconds, watched


def train_and_die_once(*arguments):
    """Kills its process after its first checkpoint, unless some job has done so before."""

    def die(name, step):
        with contextlib.suppress(FileExistsError):
            Path(os.environ[MARK]).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)

    _traced(die, *arguments)


def train_and_wait(*arguments):
    """Halts after the second record until the test has done what it wants to do in mid-run; sends all the time."""
    seconds, mirror._SECONDS = mirror._SECONDS, 0.05

    def wait(name, step):
        while step == 2 * EVERY and not Path(os.environ[MARK]).exists():
            time.sleep(0.05)

    try:
        _traced(wait, *arguments)
    finally:
        mirror._SECONDS = seconds


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(*_):
    """Raises, and counts how often it was asked."""
    with open(os.environ[TRACE], "a") as file:
        file.write("asked\n")
    raise UserError("the loss is infinite.")


def linger(folder, name, device):
    """Says which process it is, and lives for two minutes."""
    Path(folder, f"{name}.part").write_text(str(os.getpid()))
    Path(folder, f"{name}.part").rename(Path(folder, f"{name}.pid"))
    time.sleep(120)


def square(offset, number, device):
    """Its answer, and what the worker is."""
    return offset + number**2, os.getpid(), torch.get_num_threads(), str(device)
