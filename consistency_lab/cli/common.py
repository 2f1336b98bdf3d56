"""What commands share: their common options, models and images by name, what is printed and written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from consistency_lab.cli.plans import DryRun
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from consistency_lab.studies.executors import Executor


@dataclass(frozen=True)
class Common(DryRun):
    """What every command that computes understands."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default a GPU where there is one"""
    force: bool = False
    """do it again although the store has it"""
    quiet: bool = False
    """no progress bars"""

    @property
    def progress(self) -> bool | None:
        return False if self.quiet else None


@dataclass(frozen=True)
class SideBySide(Common):
    """What the commands that train several models, or compare over many samples, understand besides."""

    workers: int | None = None
    """models trained, or blocks of samples compared, at a time. local: processes that share the CPU's threads; by default one per GPU, else
    one. ray: as many as there is room for"""
    executor: Literal["local", "ray"] = "local"
    """where that is done: on this machine, or on a Ray cluster"""
    address: str | None = None
    """of the Ray cluster: auto, or HOST:PORT; without it Ray is started on this machine"""
    gpus_per_worker: float | None = None
    """share of a GPU that each asks for on Ray, 0.5 for two a GPU; 1 by default"""

    @property
    def where(self) -> Executor:
        """The executor that is asked for. Raises `UserError` for options that do not go together."""
        from consistency_lab.studies.executors import executor_of

        return executor_of(self.executor, self.workers, self.address, self.gpus_per_worker)


@dataclass(frozen=True)
class OfModels(Common):
    """What every command understands that opens models or features of others."""

    trust: bool = False
    """open files that are programs, such as TorchScript; they may read and write files of yours when they run"""


def imported(module: str, name: str) -> Any:
    """A name of the package, imported only now: ``imported("networks.registry", "NETWORKS")``."""
    from importlib import import_module

    return getattr(import_module(f"consistency_lab.{module}"), name)


def find(texts: Sequence[str], store: Path) -> list[str]:
    """What each text means, for a dry run: the run's folder, or the foreign address itself. Nothing is loaded.

    Raises:
        UserError: no such run, file or folder, or an address that cannot be read.
    """
    from consistency_lab.addresses import is_foreign, read_address
    from consistency_lab.interop.files import is_weights, refuse_weights
    from consistency_lab.loading import find_run

    for text in texts:
        if is_weights(text):
            refuse_weights(text)
        if is_foreign(text):
            read_address(text).check_there()
    return [text if is_foreign(text) else str(find_run(text, store).folder) for text in texts]


def runs_itself(text: str) -> bool:
    """Whether an address is of a whole pipeline, under its own scheduler and not under our sampler."""
    from consistency_lab.addresses import is_foreign, read_address
    from consistency_lab.pipelines.either import usual_mode

    address = read_address(text) if is_foreign(text) else None
    if address is None or address.prefix != "diffusers":
        return False
    return (address.options.get("mode") or usual_mode(Path(address.path).expanduser())) == "theirs"


def load_models(texts: Sequence[str], store: Path, device: str | None) -> list[Any]:
    from consistency_lab.loading import load_all

    return load_all(texts, store=store, device=device)


def training_images(data: str | None, data_dir: Path | None) -> Any:
    from consistency_lab.data.sources import load_images

    return None if data is None else load_images(data, data_dir=data_dir)


def with_weights(metrics: Sequence[str], weights: Path | None) -> tuple[str, ...]:
    """The metrics, those of LPIPS with the file of their trunk's weights."""
    from consistency_lab.choices import Choice

    if weights is None:
        return tuple(metrics)
    chosen = [Choice.parse(metric) for metric in metrics]
    return tuple(
        str(Choice(each.name, {"weights": str(weights), **each.options}))
        if each.name.startswith("lpips")
        else str(each)
        for each in chosen
    )


MOST = 10_000  # numbers of one range: more is a slip of the finger


def parse_numbers(text: str, what: str) -> list[int]:
    """``"0-3,7"`` -> [0, 1, 2, 3, 7]. Raises `UserError` for anything else; ``what`` names the numbers: seeds, labels."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"cannot read the {what} {text!r}: write numbers and rising ranges, for example 0-3,7.")
        if int(last or first) - int(first) >= MOST:
            raise UserError(f"the {what} {text!r} are more than {MOST}; write a shorter range.")
        numbers.extend(range(int(first), int(last or first) + 1))
    if len(set(numbers)) < len(numbers):
        raise UserError(f"the {what} {text!r} name one of them twice.")
    return numbers


_claimed = contextlib.ExitStack()


def claim_folder(out: Path, force: bool) -> None:
    """Take a folder for the results of this command, until `release_folders`.

    Raises:
        UserError: it holds results already, unless they may be written over; or another command is making results for it.
        StoreError: nothing can be written there.
    """
    from consistency_lab.store.atomic import ensure_writable

    ensure_writable(out)
    _claimed.enter_context(_alone_in(out))
    held = sorted((out / "results").glob("*.nc"))
    if held and not force:
        raise UserError(
            f"{out} holds results already ({', '.join(path.name for path in held[:3])}); name another folder with --out, or write over "
            "them with --force."
        )


def release_folders() -> None:
    """Let go of the folders that were claimed; one in which nothing was written is removed."""
    _claimed.close()


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold a lock in a folder, which is made where there is none. It ends with the process."""
    from filelock import FileLock, Timeout

    from consistency_lab.store.atomic import cannot

    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another command is making results for {out}; wait for it, or name another folder with --out."
        ) from None
    except OSError as error:
        raise cannot("write to", out, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / ".lock").unlink(missing_ok=True)
        lock.release()
        for folder in made:
            with contextlib.suppress(OSError):  # such as one that holds results
                folder.rmdir()


def write_results(results: dict[str, xr.Dataset], out: Path, title: str, *, figures: bool = True) -> None:
    """Results as netCDF and CSV, their figures unless the page is enough, and the report."""
    from consistency_lab.reports.folder import write_folder

    path = write_folder(results, out, title, figures=figures)
    print(f"report: {path}")


def print_headline(comparison: xr.Dataset) -> None:
    from consistency_lab.intervals import interval_of
    from consistency_lab.kinds.meaning import nearer_reference
    from consistency_lab.kinds.numbers import headline, score_text
    from consistency_lab.plots.frames import overview
    from consistency_lab.plots.reading import names

    head = headline(comparison)
    title = f"Comparison of {', '.join(names(comparison, 'model'))}"
    print(f"\n{title}\n{'-' * len(title)}\n{head.sentence}\n")
    if meaning := nearer_reference(comparison, head.metric):
        print(f"{meaning}\n")
    for row in overview(comparison, head.metric).to_dict("records"):
        print(f"  {row['name']:<40}  {score_text(*interval_of(row, 'score'))}")


def print_table(result: xr.Dataset, table: pd.DataFrame) -> None:
    """A table of a result, and what the result says of itself: its note and its warnings."""
    print(table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))
    print_remarks(result)


def print_remarks(result: xr.Dataset) -> None:
    """The note and the warnings of a result."""
    if note := result.attrs.get("note"):
        print(f"\n{note}")
    for sentence in json.loads(result.attrs.get("warnings", "[]")):
        print(f"Warning: {sentence}")


def cost_facts(seconds: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Minutes of training and of evaluation of each job, on this machine with the threads that it has now."""
    keys = ("training", "evaluation")
    jobs = {name: {k: round(v / 60, 2) for k, v in zip(keys, each, strict=True)} for name, each in seconds.items()}
    total = {key: round(sum(each[i] for each in seconds.values()) / 60, 2) for i, key in enumerate(keys)}
    return {"jobs": jobs, "unit": "minutes, one job after another", "total": total}
