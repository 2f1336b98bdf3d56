"""A comparison's samples go by in blocks, here or in other processes, and what was measured of each becomes one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr

from consistency_lab.devices import hand_back, plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.blocks import plain_over_all
from consistency_lab.similarity.checks import Kept, extremes_of, kept_of
from consistency_lab.similarity.measuring import Asked, Block, Values, measure_block
from consistency_lab.similarity.pictures import Pictures
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.similarity.trajectories import WalkCache, place_of


@dataclass
class Measured:
    """What was measured.

    Attributes:
        kept: which models and samples.
        alone_warning: of samples that were left alone in their block; empty where there are none.
        values: per sample, float64: what `measuring` gives, as variables; of several blocks single distances of other noise are float32.
        blocks: the number of each sample's block ``(N,)``; None where there is one.
        t, log_snr, pair_log_snr: of the comparison and of its pairs.
        alone: scores of typical samples compared alone (`typical_alone`), where the images were there to do so.
        pictures, extremes: of the samples that are shown, and of those at both ends.
        references: names of the closed-form denoisers.
    """

    kept: Kept
    alone_warning: str
    values: Values
    blocks: np.ndarray | None
    t: np.ndarray
    log_snr: np.ndarray
    pair_log_snr: np.ndarray
    alone: np.ndarray | None
    pictures: Pictures
    extremes: Pictures
    references: list[str]


def measure(
    models: Sequence[GenerativeModel],
    asked: Asked,
    blocks: Sequence[np.ndarray],
    known: WalkCache | None = None,
    workers: Workers | None = None,
) -> Measured:
    """Measure blocks of samples.

    A sample at which some model gives values that are not finite is left out. If a model gives too many of them, all is measured again
    without it, and with the samples that it alone had lost.

    Args:
        models: two or more.
        asked: what is measured.
        blocks: the samples of each.
        known: trajectories that are known, and are to be remembered: of one block.
        workers: processes that measure the blocks, where there are several.

    Raises:
        UserError: too little is left, or models or metrics cannot be sent to other processes.
    """
    found = _measure(models, asked, blocks, known, workers)
    if len(found.kept.models) == len(models):
        return found
    again = asked.again if 0 in found.kept.models else None
    rest = _measure([models[k] for k in found.kept.models], replace(asked, again=again), blocks, known, workers)
    warning = " ".join(filter(None, [found.kept.warning, rest.alone_warning]))
    rest.kept = found.kept._replace(samples=rest.kept.samples, warning=warning)
    return rest


def _measure(
    models: Sequence[GenerativeModel],
    asked: Asked,
    blocks: Sequence[np.ndarray],
    known: WalkCache | None,
    workers: Workers | None,
) -> Measured:
    several = len(blocks) > 1
    if several and workers is not None and not workers.here(len(blocks), _anywhere(models)):
        found = _elsewhere(models, asked, blocks, workers)
    else:
        found = _here(models, asked, blocks, known)
    parts: list[Values] = []
    bad, lost = [], []
    pictures, extremes = Pictures(), Pictures()
    for block in found:
        bad.append(block.bad)
        lost.append(block.lost)
        if not block.values:
            continue
        block.values["block"] = (("sample",), np.full(len(block.left), len(parts), dtype=np.int32))
        parts.append(block.values)
        _picture_first(pictures, asked.shown, block)
        _picture_ends(extremes, parts, block, asked.distances)
        block.last = block.last[:0]
    order = np.concatenate(blocks).argsort()
    names, axis = [m.name for m in models], torch.from_numpy(block.t)
    kept = kept_of(names, axis, *(np.concatenate(x, -1)[..., order] for x in (bad, lost)))
    if not parts and len(kept.models) == len(models):
        raise UserError("no sample is left that has another one beside it in its block; raise block, or count.")
    joined = _joined(parts)
    warning = ""
    if parts and (without := len(kept.samples) - len(joined["number"][1])):
        warning = f"{without} more samples are left out: no other one is left that could be their null."
    if parts:
        kept = kept._replace(
            samples=joined["number"][1].tolist(), warning=" ".join(filter(None, [kept.warning, warning]))
        )
    if "ceiling" in joined and np.isnan(joined["ceiling"][1]).all():  # no two second runs are left
        joined = {name: each for name, each in joined.items() if not name.startswith("ceiling")}
    in_blocks = joined["block"][1] if len(parts) > 1 else None
    if in_blocks is not None and "plain_null" in joined:
        dims, plain = joined["plain_null"]
        under = asked.labels[kept.samples]  # type: ignore[index]  # there is a plain null only where there are labels
        joined["plain_null"] = (dims, plain_over_all(plain, joined["null"][1], under, in_blocks))
    alone = None if several else block.alone
    at = (block.t, block.log_snr, block.pair_log_snr)
    return Measured(kept, warning, joined, in_blocks, *at, alone, pictures, extremes, block.references)


def _here(
    models: Sequence[GenerativeModel], asked: Asked, blocks: Sequence[np.ndarray], known: WalkCache | None
) -> Iterator[Block]:
    cache = WalkCache() if known is None else known
    for samples in blocks:
        yield measure_block(models, asked, samples, len(blocks) > 1, cache)
        if known is None:
            cache.forget()
        if len(blocks) > 1:
            hand_back()


class Workers(Protocol):
    """Processes that do jobs, such as `studies.executors.Executor`."""

    def here(self, jobs: int, device: torch.device) -> bool: ...

    def run(
        self,
        function: Callable[..., Any],
        jobs: Mapping[str, Sequence[Any]],
        shared: Sequence[Any],
        device: torch.device,
    ) -> Generator[tuple[str, Any], None, None]: ...


def _elsewhere(
    models: Sequence[GenerativeModel], asked: Asked, blocks: Sequence[np.ndarray], workers: Workers
) -> Iterator[Block]:
    """Blocks measured by other processes, in their order: all that follows is the same as here, to the bit."""
    device = _anywhere(models)
    sent = [copy.deepcopy(m).to("cpu") if isinstance(m, DiffusionModel) and device.type != "cpu" else m for m in models]
    try:
        pickle.dumps((sent, asked))
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"a model or metric cannot be sent to another process ({error}); compare without workers."
        ) from error
    jobs = {str(place): (samples,) for place, samples in enumerate(blocks)}
    done: dict[int, Block] = {}
    following = 0
    with closing(workers.run(measure_elsewhere, jobs, (sent, asked), device)) as found:
        for name, block in found:
            done[int(name)] = block
            while following in done:
                yield done.pop(following)
                following += 1


def _anywhere(models: Sequence[GenerativeModel]) -> torch.device:
    """The kind of device that the models are on: of several GPUs each worker has its own."""
    return torch.device(place_of(models).type)


_here_now: list[Any] = []  # of a worker: what it was sent, its models where it works, and what is known of them


@plain_defaults()
def measure_elsewhere(models: list[GenerativeModel], asked: Asked, samples: np.ndarray, device: torch.device) -> Block:
    """In another process: measure one block out of several. Models are moved, and references made, once."""
    if not _here_now or _here_now[0] is not asked:
        if device.type != "cpu":
            models = [model.to(device) if isinstance(model, DiffusionModel) else model for model in models]
        _here_now[:] = [asked, models, WalkCache()]
    _, moved, cache = _here_now
    found = measure_block(moved, asked, samples, True, cache)
    cache.forget()
    hand_back()
    return found


def _joined(parts: Sequence[Values]) -> Values:
    """The values of all blocks, samples in their order; taken out of the parts, so that none is held twice."""
    if len(parts) < 2:
        return dict(parts[0]) if parts else {}
    order = np.concatenate([part["number"][1] for part in parts]).argsort()
    inorder = bool((np.diff(order) == 1).all())  # as blocks without labels are: nothing is copied once more
    joined: Values = {}
    for name, (dims, _) in list(parts[0].items()):
        axis = next(dims.index(along) for along in ("sample", "other", "pixel") if along in dims)
        whole = np.concatenate([part.pop(name)[1] for part in parts], axis)
        joined[name] = (dims, whole.take(order, axis) if "sample" in dims and not inorder else whole)
    return joined


def _picture_first(pictures: Pictures, shown: int, block: Block) -> None:
    """Keep what is shown of the first samples so far."""
    wanted = sorted([*pictures.numbers, *block.left.tolist()])[:shown]
    new = np.flatnonzero(np.isin(block.left, wanted))
    pictures.add(block.left[new].tolist(), **{name: each[new] for name, each in block.first.items()})
    pictures.only(wanted)


def _picture_ends(pictures: Pictures, parts: Sequence[Values], block: Block, distances: Sequence[Distance]) -> None:
    """Keep the final images of the samples at either end so far, of every metric."""
    last = [part["distance"][1][:, -1:].astype(np.float32) for part in parts]
    numbers = np.concatenate([part["number"][1] for part in parts])
    sofar = xr.Dataset(
        {"distance": (("pair", "t", "sample", "metric"), np.concatenate(last, 2))},
        {"sample": numbers, **metric_coordinates(distances)},
    ).isel(sample=numbers.argsort())
    wanted = sofar["sample"].values[extremes_of(sofar)].tolist()
    new = np.flatnonzero(np.isin(block.left, wanted))
    pictures.add(block.left[new].tolist(), images=block.last[new])
    pictures.only(wanted)
