"""Training inside a run folder, whatever is trained: logged, saved along the way, resumed after a stop, never done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from consistency_lab.errors import StoreError, UserError
from consistency_lab.store.checkpoint import check_tensors, load_state, load_tensors, save_state, save_tensors
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.loop import TrainingStep, check_finite
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.stopping import Stopped, stop_between_steps

_logger = logging.getLogger(__name__)
_LOG_EVERY = 25  # steps; the loss is fetched from the device this often
_CHECKPOINT_SECONDS = 20.0
_STATE = "checkpoint.pt"
_WEIGHTS = {"ema": "ema.safetensors", "raw": "raw.safetensors"}

Weights = dict[str, Tensor]


class Loop(Protocol):
    """What can be trained in a run folder: `TrainingLoop`, or another loop of its shape."""

    average: WeightAverage
    settings: Any  # a `LoopSettings`
    device: torch.device
    step: int

    @property
    def module(self) -> nn.Module: ...

    def __iter__(self) -> Iterator[TrainingStep]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train_in_store(
    store: Store | str | Path,
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    loop: Loop,
    *,
    keep: Callable[[Weights], Weights] = dict,
    force: bool = False,
    progress: bool | None = None,
) -> Run:
    """Train a new loop to its end in the run folder of its spec, from the folder's checkpoint where there is one.

    Nothing happens if the store has the finished run and its weights can be read. The folder then holds ``ema.safetensors`` and
    ``raw.safetensors``, weights along the way in ``snapshots/``, the log, and ``done.json``.

    Args:
        store: the store, or its root.
        kind, name, spec: of the run (see `Store.run`).
        loop: at step 0; its settings, its data and its device are what the spec says.
        keep: the part of the module's weights that is written.
        force: train again although the store has the run.
        progress: show a progress bar; by default on a terminal only.

    Returns:
        the finished run.

    Raises:
        UserError: a loss that diverges.
        StoreError: the store cannot be written, or another process holds the run.
        Stopped: Ctrl-C was pressed; the step in progress was ended and saved.
    """
    store = store if isinstance(store, Store) else Store(store)
    run = store.run(kind, name, spec)
    if force or (run.done and not _readable(run)):
        run.discard()
    if not run.done:
        threads = torch.get_num_threads()
        try:
            with run.begin():
                if not run.done:
                    _train_in(run, loop, keep, progress)
        finally:
            torch.set_num_threads(threads)  # a resumed run may have taken those that it began with
    return run


def _readable(run: Run) -> bool:
    """Whether the weights of a finished run are there; where they are not, it is no result and is trained again, to the same bits."""
    try:
        for name in _WEIGHTS.values():
            check_tensors(run.folder / name)
    except StoreError as error:
        _logger.warning("%s Training %s again.", error, run.name)
        return False
    return True


def train_unkept(loop: Loop, name: str, progress: bool | None = None) -> None:
    """Train a loop to its end and write nothing. Raises `UserError` for a loss that diverges."""
    for _ in _watched(loop, name, progress, []):
        pass


def _watched(
    loop: Loop,
    name: str,
    progress: bool | None,
    pending: list[dict[str, Tensor]],
    check: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, float]]:
    """Run the loop, show it, and yield a log record of step, mean losses since the last, lr and beta1 every `_LOG_EVERY` steps.

    Args:
        pending: losses of the steps since the last record; a stopped run saves them for the record that they belong to.
        check: called after each step but the last.
    """
    total = loop.settings.steps
    with tqdm(
        total=total, initial=loop.step, desc=name, unit="step", disable=None if progress is None else not progress
    ) as bar:
        for done in loop:
            pending.append({"loss": done.loss, **done.parts})
            bar.update()
            if done.step % _LOG_EVERY == 0 or done.step == total:
                means = {key: float(torch.stack([losses[key] for losses in pending]).mean()) for key in pending[0]}
                pending.clear()
                for loss in means.values():
                    check_finite(loss, done.step, name)
                bar.set_postfix_str(", ".join(f"{key} {loss:.4f}" for key, loss in means.items()))
                yield {"step": done.step, **means, "lr": done.lr, "beta1": done.beta1}
            if done.step < total:
                check()


def snapshot_steps(settings: LoopSettings) -> list[int]:
    """The log-spaced steps at which weights are kept, rounded up to logged steps; the last is the end of the run."""
    if not settings.snapshots:
        return []
    points = np.geomspace(min(_LOG_EVERY, settings.steps), settings.steps, settings.snapshots)
    return sorted({min(settings.steps, int(-(-point // _LOG_EVERY)) * _LOG_EVERY) for point in points})


def _train_in(run: Run, loop: Loop, keep: Callable[[Weights], Weights], progress: bool | None) -> None:
    """Train inside a begun run folder, from its checkpoint where there is one."""
    state = run.folder / _STATE
    seconds, pending = 0.0, list[dict[str, Tensor]]()
    if state.exists():
        saved = load_state(state)
        if saved["threads"] != torch.get_num_threads() and loop.device.type == "cpu":
            # Sums on a CPU depend on how they are divided: the resume is to the bit.
            torch.set_num_threads(saved["threads"])
        loop.load_state_dict(saved["loop"])
        seconds = saved["seconds"]
        pending += [{key: loss.to(loop.device) for key, loss in losses.items()} for losses in saved.get("pending", [])]
    run.truncate_log(loop.step)
    for step, path in _snapshot_files(run):
        if step > loop.step:  # by a run that was killed after its last checkpoint: it is written again
            path.unlink()
    snapshots = set(snapshot_steps(loop.settings))
    started = saved_at = time.monotonic()

    def save() -> None:
        spent, threads = seconds + time.monotonic() - started, torch.get_num_threads()
        save_state(state, {"loop": loop.state_dict(), "pending": pending, "seconds": spent, "threads": threads})

    with stop_between_steps() as check:
        try:
            for record in _watched(loop, run.name, progress, pending, check):
                now, step = time.monotonic(), int(record["step"])
                run.log({**record, "seconds": seconds + now - started})
                if step in snapshots:
                    path = _snapshots(run) / f"step-{step:07d}.safetensors"
                    save_tensors(path, keep(loop.average.weights), {"step": step})
                if now - saved_at > _CHECKPOINT_SECONDS:
                    save()
                    saved_at = now
        except Stopped:
            save()
            where = f"at step {loop.step} of {loop.settings.steps}"
            raise Stopped(f"training {run.name} stopped {where}; the same command goes on from there.") from None
        seconds += time.monotonic() - started
        for kind, weights in (("ema", loop.average.weights), ("raw", loop.module.state_dict())):
            save_tensors(run.folder / _WEIGHTS[kind], keep(weights), {"spec": run.spec, "weights": kind})
        run.finish({"steps": loop.step, "seconds": round(seconds, 2), "final_loss": run.records()[-1]["loss"]})
        state.unlink(missing_ok=True)


def finished_run(run: Run | str | Path, kind: str) -> Run:
    """The run, opened if it is a path. Raises `UserError` unless it is a finished run of that kind."""
    run = run if isinstance(run, Run) else Run.open(run)
    if run.kind != kind or not run.done:
        raise UserError(
            f"{run.folder} is not a finished {kind}; train it first (the same command goes on where it stopped)."
        )
    return run


def final_weights(run: Run, weights: str) -> tuple[Weights, Path]:
    """The ``"ema"`` or ``"raw"`` weights of a finished run, and the file that they lie in.

    Raises:
        UserError: other weights than those two are asked for.
        StoreError: the file is missing or truncated.
    """
    if weights not in _WEIGHTS:
        raise UserError(f"the weights of a run are 'ema' or 'raw', not {weights!r}.")
    path = run.folder / _WEIGHTS[weights]
    try:
        return load_tensors(path)[0], path
    except StoreError as error:
        raise StoreError(
            f"{str(error).partition(';')[0]}; train {run.name} again (the same command makes it anew)."
        ) from error


def snapshots_of(run: Run) -> Iterator[tuple[int, Weights, Path]]:
    """The averaged weights that were kept along a run, first to last: (step, weights, file)."""
    for step, path in _snapshot_files(run):
        yield step, load_tensors(path)[0], path


def _snapshot_files(run: Run) -> list[tuple[int, Path]]:
    paths = sorted(_snapshots(run).glob("step-*.safetensors"))
    return [(int(path.stem.removeprefix("step-")), path) for path in paths]


def _snapshots(run: Run) -> Path:
    return run.folder / "snapshots"
