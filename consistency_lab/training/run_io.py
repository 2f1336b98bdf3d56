"""Training inside a run folder, whatever is trained: logged, saved along the way, resumed after a stop, never done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from consistency_lab.errors import DamagedError, StoreError, UserError
from consistency_lab.progress import told
from consistency_lab.store.atomic import is_file
from consistency_lab.store.checkpoint import (
    STATE,
    check_run_tensors,
    load_run_tensors,
    load_state,
    save_run_tensors,
    save_state,
)
from consistency_lab.store.run import DONE, SPEC, Run
from consistency_lab.store.runs import Store
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.loop import TrainingStep, check_finite
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.stopping import Stopped, stop_between_steps
from consistency_lab.training.watching import LOG_EVERY, Record, Watch

_logger = logging.getLogger(__name__)
_CHECKPOINT_SECONDS = 20.0
_SNAPSHOTS = "snapshots"
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

    Nothing happens if the store has the finished run and its weights are whole; what another process is training is waited for. The
    folder then holds ``ema.safetensors`` and ``raw.safetensors``, weights along the way in ``snapshots/``, the log, and ``done.json``.
    A finished run whose weights are damaged is set aside, not removed, and trained again.

    A run that its callback stops is another run, NAME@STEP, whose spec says at which step. The folder of the whole spec stays unfinished
    beside it, with its checkpoint: without the callback it goes on from there.

    Args:
        store: the store, or its root.
        kind, name, spec: of the run (see `Store.run`).
        loop: at step 0; its settings, its data and its device are what the spec says.
        keep: the part of the module's weights that is written.
        force: set aside what the store has of the run, and train again.
        progress: show a progress bar; by default on a terminal only.
        watch: callback and validation.

    Returns:
        the finished run.

    Raises:
        UserError: a loss that diverges.
        StoreError: the store cannot be written or read; without ``force`` also a folder that holds weights and neither ``done.json`` nor
            the checkpoint from which they could be made again.
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
    waiting: Callable[[str], None] | None = _logger.warning,
    keep: Callable[[Weights], Weights] = dict,
    force: bool = False,
    progress: bool | None = None,
    watch: Watch | None = None,
) -> Generator[None, None, Run]:
    """`train_in_store` step by step: yields before each step, and returns the finished run.

    Args:
        check: called after each step but the last; what it raises ends the run there. `Stopped` saves it first, also where it is thrown
            into the generator.
        waiting: is told of a process that holds the run, which is waited for; None refuses such a run (`HeldError`).
    """
    store = store if isinstance(store, Store) else Store(store)
    run, watch, last = store.run(kind, name, spec), watch or Watch(), loop.settings.steps
    _tell_of_sibling(store, run)
    _make_way(run, force)
    watch.replay(run, last)
    if watch.stopped is None:
        yield from _finish(run, loop, keep, progress, watch, last, check, waiting)
        watch.replay(run, last)  # what another process has trained meanwhile
    if watch.stopped in (None, last):
        return run
    short = store.run(kind, f"{name}@{watch.stopped}", {**spec, "stopped": watch.stopped})
    _make_way(short, force)
    alone = Watch(validation=watch.validation)
    yield from _finish(short, loop, keep, progress, alone, watch.stopped, check, waiting, run)
    return short


def _finish(
    run: Run,
    loop: Loop,
    keep: Callable[[Weights], Weights],
    progress: bool | None,
    watch: Watch,
    until: int,
    check: Callable[[], None],
    waiting: Callable[[str], None] | None,
    whole: Run | None = None,
) -> Iterator[None]:
    """Train to a step unless the store has it; ``whole``: the run that was stopped there, whose log and snapshots become those of this."""
    if run.done:
        return
    threads = torch.get_num_threads()
    try:
        with run.begin(waiting):
            if not run.done:
                if whole is not None and loop.step == until:
                    _take_over(run, whole)
                yield from _train_in(run, loop, keep, progress, watch, until, check)
    finally:
        torch.set_num_threads(threads)  # a resumed run may have taken those that it began with


def _take_over(run: Run, whole: Run) -> None:
    """Give a run the log and the snapshots of another, in the place of what an earlier attempt has left."""
    (run.folder / STATE).unlink(missing_ok=True)
    run.truncate_log(0)
    for record in whole.records():
        run.log(record)
    for step, weights, _ in snapshots_of(whole):
        _save_snapshot(run, step, weights)


def _tell_of_sibling(store: Store, run: Run) -> None:
    """Say that a new run begins beside an unfinished one which differs from it in nothing but the number of processes."""
    if is_file(run.folder / SPEC):
        return
    for path in sorted(store.root.glob(f"*/{STATE}")):
        try:
            other = Run.open(path.parent)
        except StoreError:  # whoever asks for that one hears of it
            continue
        if other.done or other.stale or other.kind != run.kind or _alone(other.spec) != _alone(run.spec):
            continue
        had, has = (each.spec.get("processes", 1) for each in (other, run))
        _logger.warning(
            "%s is unfinished in %s, where %d process%s trained it; on %d it is another run, which begins at step 0.",
            other.name, other.folder, had, "" if had == 1 else "es", has,
        )  # fmt: skip
        return


def _alone(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "processes"}


def _make_way(run: Run, force: bool) -> None:
    """Set a run aside that is to be trained again, because it is asked for or because its weights are not what was written."""
    why = None
    if force:
        why = ""
    elif run.done:
        try:
            for name in _WEIGHTS.values():
                check_run_tensors(run, name)
        except DamagedError as error:  # a file that cannot be read just now is no damage: that ends the training here
            why = f"{error} "
    elif not is_file(run.folder / STATE) and (left := _weights_in(run)) and not run.done:  # by another process, by now
        raise StoreError(
            f"{run.folder} holds {left[0]} and neither its {DONE} nor the {STATE} from which it would go on; put them back, or train "
            "it anew with --force, which sets this folder aside."
        )
    if why is not None and (place := run.set_aside()) is not None:
        _logger.warning("%sWhat there was of %s lies in %s now. Training %s again.", why, run.name, place, run.name)


def _weights_in(run: Run) -> list[str]:
    names = [name for name in _WEIGHTS.values() if is_file(run.folder / name)]
    return names + [path.name for _, path in snapshot_files(run)]


def train_unkept(loop: Loop, name: str, progress: bool | None = None, watch: Watch | None = None) -> float:
    """Train a loop to its end, or until its callback stops it, and write nothing; returns the seconds that its steps took.

    Raises:
        UserError: a loss that diverges.
    """
    watch, started, seconds = watch or Watch(), time.monotonic(), 0.0
    for record in _watched(loop, name, progress, [], watch, loop.settings.steps):
        if record is not None:
            seconds = time.monotonic() - started
            watch.tell({**record, "seconds": seconds})
    return seconds


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
    told(name, loop.step, total)
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
                told(name, done.step, total, means["loss"])
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
    state = run.folder / STATE
    seconds, pending = 0.0, list[dict[str, Tensor]]()
    if state.exists():
        saved = load_state(state, of=run)
        if saved["threads"] != torch.get_num_threads() and loop.device.type == "cpu":
            # Sums on a CPU depend on how they are divided: the resume is bit-exact.
            torch.set_num_threads(saved["threads"])
        loop.load_state_dict(saved["loop"])
        seconds = saved["seconds"]
        pending += [{key: loss.to(loop.device) for key, loss in losses.items()} for losses in saved.get("pending", [])]
    run.truncate_log(loop.step)
    if (lost := loop.step // LOG_EVERY - len(run.records())) > 0:
        _logger.warning(
            "the log of %s lacks %d lines of its steps before %d; its curve has a gap.", run.name, lost, loop.step
        )
    for step, path in snapshot_files(run):
        if step > loop.step:  # by a run that was killed after its last checkpoint: it is written again
            path.unlink()
    snapshots = set(snapshot_steps(loop.settings))
    if loop.step in snapshots:  # by a run that was killed between its checkpoint and this
        _save_snapshot(run, loop.step, keep(loop.average.weights))
    marked = saved_at = time.monotonic()

    def spent() -> float:
        """Seconds of this run so far; of a step that several models take at once each has its share."""
        nonlocal seconds, marked
        now = time.monotonic()
        seconds, marked = seconds + (now - marked) / loop.sharing, now
        return seconds

    def save() -> None:
        resumed = {"loop": loop.state_dict(), "pending": pending, "seconds": spent(), "run": run.hash}
        save_state(state, {**resumed, "threads": torch.get_num_threads()})

    try:
        for record in _watched(loop, run.name, progress, pending, watch, until, check):
            if record is None:
                yield
                continue
            step, record["seconds"] = int(record["step"]), spent()
            run.log(record)
            if step in snapshots:
                if not state.exists():
                    save()  # where there are weights, there is also what they can be made from
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
    if not state.exists():
        save()
    for kind, weights in (("ema", loop.average.weights), ("raw", loop.module.state_dict())):
        save_run_tensors(run, _WEIGHTS[kind], keep(weights), {"spec": run.spec, "weights": kind})
    last = run.records()[-1]
    said = {"steps": loop.step, "seconds": round(last["seconds"], 2), "final_loss": last["loss"]}
    run.finish(said, passing=[STATE])
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
        return load_run_tensors(run, path.name)[0], path
    except DamagedError as error:
        raise DamagedError(
            f"{str(error).partition(';')[0]}; train {run.name} again (the same command sets it aside and makes it again)."
        ) from error


def snapshots_of(run: Run, steps: Container[int] | None = None) -> Iterator[tuple[int, Weights, Path]]:
    """The averaged weights that were kept along a run, first to last: (step, weights, file); those of some steps, or all."""
    for step, path in snapshot_files(run):
        if steps is None or step in steps:
            tensors, said = load_run_tensors(run, f"{_SNAPSHOTS}/{path.name}")
            if said.get("step", step) != step:
                raise DamagedError(f"{path} is of step {said['step']}; put back the file that belongs there.")
            yield step, tensors, path


def _save_snapshot(run: Run, step: int, weights: Weights) -> None:
    save_run_tensors(run, f"{_SNAPSHOTS}/step-{step:07d}.safetensors", weights, {"step": step})


def snapshot_files(run: Run) -> list[tuple[int, Path]]:
    """The steps at which weights were kept along a run, first to last, and their files."""
    paths = sorted((run.folder / _SNAPSHOTS).glob("step-*.safetensors"))
    return [(int(path.stem.removeprefix("step-")), path) for path in paths]
