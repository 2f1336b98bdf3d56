"""Training inside a run folder, whatever is trained: logged, saved along the way, resumed after a stop, never done twice."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping
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
from consistency_lab.training.watching import LOG_EVERY, Record, Watch

_logger = logging.getLogger(__name__)
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
    sharing: int  # models that share the time of a step

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
    watch: Watch | None = None,
) -> Run:
    """Train a new loop to its end in the run folder of its spec, from the folder's checkpoint where there is one.

    Nothing happens if the store has the finished run and its weights can be read. The folder then holds ``ema.safetensors`` and
    ``raw.safetensors``, weights along the way in ``snapshots/``, the log, and ``done.json``.

    A run that its callback stops is another run, NAME@STEP, whose spec says at which step. The folder of the whole spec stays unfinished
    beside it, with its checkpoint: without the callback it goes on from there.

    Args:
        store: the store, or its root.
        kind, name, spec: of the run (see `Store.run`).
        loop: at step 0; its settings, its data and its device are what the spec says.
        keep: the part of the module's weights that is written.
        force: train again although the store has the run.
        progress: show a progress bar; by default on a terminal only.
        watch: callback and validation.

    Returns:
        the finished run.

    Raises:
        UserError: a loss that diverges.
        StoreError: the store cannot be written, or another process holds the run.
        Stopped: Ctrl-C was pressed; the step in progress was ended and saved.
    """
    options: dict[str, Any] = {"keep": keep, "force": force, "progress": progress, "watch": watch}
    with stop_between_steps() as check:
        steps = steps_in_store(store, kind, name, spec, loop, check=check, **options)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                run: Run = end.value
                return run


def steps_in_store(
    store: Store | str | Path,
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    loop: Loop,
    *,
    check: Callable[[], None],
    keep: Callable[[Weights], Weights] = dict,
    force: bool = False,
    progress: bool | None = None,
    watch: Watch | None = None,
) -> Generator[None, None, Run]:
    """`train_in_store` step by step: yields before each step, and returns the finished run.

    Args:
        check: called after each step but the last; what it raises ends the run there. `Stopped` saves it first, also where it is thrown
            into the generator.
    """
    store = store if isinstance(store, Store) else Store(store)
    run, watch, last = store.run(kind, name, spec), watch or Watch(), loop.settings.steps
    if force or (run.done and not _readable(run)):
        run.discard()
    watch.replay(run, last)
    if watch.stopped is None:
        yield from _finish(run, loop, keep, progress, watch, last, check)
        watch.replay(run, last)  # what another process has trained meanwhile
    if watch.stopped in (None, last):
        return run
    short = store.run(kind, f"{name}@{watch.stopped}", {**spec, "stopped": watch.stopped})
    if force or (short.done and not _readable(short)):
        short.discard()
    alone = Watch(validation=watch.validation)
    yield from _finish(short, loop, keep, progress, alone, watch.stopped, check, run)
    return short


def _finish(
    run: Run,
    loop: Loop,
    keep: Callable[[Weights], Weights],
    progress: bool | None,
    watch: Watch,
    until: int,
    check: Callable[[], None],
    whole: Run | None = None,
) -> Iterator[None]:
    """Train to a step unless the store has it; ``whole``: the run that was stopped there, whose log and snapshots become those of this."""
    if run.done:
        return
    threads = torch.get_num_threads()
    try:
        with run.begin():
            if not run.done:
                if whole is not None and loop.step == until:
                    _take_over(run, whole)
                yield from _train_in(run, loop, keep, progress, watch, until, check)
    finally:
        torch.set_num_threads(threads)  # a resumed run may have taken those that it began with


def _take_over(run: Run, whole: Run) -> None:
    """Give a run the log and the snapshots of another, in the place of what an earlier attempt has left."""
    (run.folder / _STATE).unlink(missing_ok=True)
    run.truncate_log(0)
    for record in whole.records():
        run.log(record)
    if _snapshots(whole).is_dir():
        shutil.copytree(_snapshots(whole), _snapshots(run), dirs_exist_ok=True)


def _readable(run: Run) -> bool:
    """Whether the weights of a finished run are there; where they are not, it is no result and is trained again, to the same bits."""
    try:
        for name in _WEIGHTS.values():
            check_tensors(run.folder / name)
    except StoreError as error:
        _logger.warning("%s Training %s again.", error, run.name)
        return False
    return True


def train_unkept(loop: Loop, name: str, progress: bool | None = None, watch: Watch | None = None) -> None:
    """Train a loop to its end, or until its callback stops it, and write nothing. Raises `UserError` for a loss that diverges."""
    watch, started = watch or Watch(), time.monotonic()
    for record in _watched(loop, name, progress, [], watch, loop.settings.steps):
        if record is not None:
            watch.tell({**record, "seconds": time.monotonic() - started})


def _watched(
    loop: Loop,
    name: str,
    progress: bool | None,
    pending: list[dict[str, Tensor]],
    watch: Watch,
    until: int,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Record | None]:
    """Run the loop, show it, and yield a log record of step, mean losses since the last, lr and beta1 every `LOG_EVERY` steps; and None
    before each step.

    Args:
        pending: losses of the steps since the last record; a stopped run saves them for the record that they belong to.
        watch: its validation is added to records, and the loop ends where its callback has stopped it.
        until: the last step.
        check: called after each step but the last.
    """
    total, steps = loop.settings.steps, iter(loop)
    with tqdm(
        total=total, initial=loop.step, desc=name, unit="step", disable=None if progress is None else not progress
    ) as bar:
        while loop.step < until:
            yield None
            done = next(steps)
            pending.append({"loss": done.loss, **done.parts})
            bar.update()
            if done.step % LOG_EVERY == 0 or done.step == total:
                found = [torch.stack([losses[key] for losses in pending]).mean() for key in pending[0]]
                means = dict(zip(pending[0], torch.stack(found).tolist(), strict=True))  # a GPU is waited for once
                pending.clear()
                for loss in means.values():
                    check_finite(loss, done.step, name)
                bar.set_postfix_str(", ".join(f"{key} {loss:.4f}" for key, loss in means.items()))
                record: Record = {"step": done.step, **means, "lr": done.lr, "beta1": done.beta1}
                if watch.validation and watch.validation.due(done.step, total):
                    record["validation"] = watch.validation(loop.average.weights)
                yield record
            if done.step == until or watch.stopped is not None:
                return
            check()


def snapshot_steps(settings: LoopSettings) -> list[int]:
    """The log-spaced steps at which weights are kept, rounded up to logged steps; the last is the end of the run."""
    if not settings.snapshots:
        return []
    points = np.geomspace(min(LOG_EVERY, settings.steps), settings.steps, settings.snapshots)
    return sorted({min(settings.steps, int(-(-point // LOG_EVERY)) * LOG_EVERY) for point in points})


def _train_in(
    run: Run,
    loop: Loop,
    keep: Callable[[Weights], Weights],
    progress: bool | None,
    watch: Watch,
    until: int,
    check: Callable[[], None],
) -> Iterator[None]:
    """Train inside a begun run folder, from its checkpoint where there is one, to its last step or to where the callback stops it."""
    state = run.folder / _STATE
    seconds, pending = 0.0, list[dict[str, Tensor]]()
    if state.exists():
        saved = load_state(state)
        if saved["threads"] != torch.get_num_threads() and loop.device.type == "cpu":
            # Sums on a CPU depend on how they are divided: the resume is bit-exact.
            torch.set_num_threads(saved["threads"])
        loop.load_state_dict(saved["loop"])
        seconds = saved["seconds"]
        pending += [{key: loss.to(loop.device) for key, loss in losses.items()} for losses in saved.get("pending", [])]
    run.truncate_log(loop.step)
    for step, path in snapshot_files(run):
        if step > loop.step:  # by a run that was killed after its last checkpoint: it is written again
            path.unlink()
    snapshots = set(snapshot_steps(loop.settings))
    marked = saved_at = time.monotonic()

    def spent() -> float:
        """Seconds of this run so far; of a step that several models take at once each has its share."""
        nonlocal seconds, marked
        now = time.monotonic()
        seconds, marked = seconds + (now - marked) / loop.sharing, now
        return seconds

    def save() -> None:
        done = {"loop": loop.state_dict(), "pending": pending, "seconds": spent(), "threads": torch.get_num_threads()}
        save_state(state, done)

    try:
        for record in _watched(loop, run.name, progress, pending, watch, until, check):
            if record is None:
                yield
                continue
            step, record["seconds"] = int(record["step"]), spent()
            run.log(record)
            if step in snapshots:
                _save_snapshot(run, step, keep(loop.average.weights))
            try:
                watch.tell(record)
            except BaseException:
                save()
                raise
            if time.monotonic() - saved_at > _CHECKPOINT_SECONDS:
                save()
                saved_at = time.monotonic()
    except Stopped:
        save()
        where = f"at step {loop.step} of {loop.settings.steps}"
        raise Stopped(f"training {run.name} stopped {where}; the same command resumes from there.") from None
    if watch.stopped is not None and loop.step < loop.settings.steps:
        return save()
    if loop.step < loop.settings.steps and snapshots:
        _save_snapshot(run, loop.step, keep(loop.average.weights))
    for kind, weights in (("ema", loop.average.weights), ("raw", loop.module.state_dict())):
        save_tensors(run.folder / _WEIGHTS[kind], keep(weights), {"spec": run.spec, "weights": kind})
    last = run.records()[-1]
    run.finish({"steps": loop.step, "seconds": round(last["seconds"], 2), "final_loss": last["loss"]})
    state.unlink(missing_ok=True)


def finished_run(run: Run | str | Path, kind: str) -> Run:
    """The run, opened if it is a path. Raises `UserError` unless it is a finished run of that kind."""
    run = run if isinstance(run, Run) else Run.open(run)
    if run.kind != kind or not run.done:
        raise UserError(
            f"{run.folder} is not a finished {kind}; train it first (the same command resumes where it stopped)."
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
            f"{str(error).partition(';')[0]}; train {run.name} again (the same command makes it again)."
        ) from error


def snapshots_of(run: Run, steps: Container[int] | None = None) -> Iterator[tuple[int, Weights, Path]]:
    """The averaged weights that were kept along a run, first to last: (step, weights, file); those of some steps, or all."""
    for step, path in snapshot_files(run):
        if steps is None or step in steps:
            yield step, load_tensors(path)[0], path


def _save_snapshot(run: Run, step: int, weights: Weights) -> None:
    save_tensors(_snapshots(run) / f"step-{step:07d}.safetensors", weights, {"step": step})


def snapshot_files(run: Run) -> list[tuple[int, Path]]:
    """The steps at which weights were kept along a run, first to last, and their files."""
    paths = sorted(_snapshots(run).glob("step-*.safetensors"))
    return [(int(path.stem.removeprefix("step-")), path) for path in paths]


def _snapshots(run: Run) -> Path:
    return run.folder / "snapshots"
