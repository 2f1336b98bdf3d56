"""What every script here shares: its options, the rows that it reads, and the figure, data and sentence that it leaves."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from _paper import paper_cost
from matplotlib.figure import Figure
from PIL import Image

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.errors import UserError
from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.tables import plan_sets
from consistency_lab.plots.fitting import note_below
from consistency_lab.plots.look import look
from consistency_lab.plots.save import save_figure
from consistency_lab.presets import TABLES, likeness_plan, race_plan, sizes_plan
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.results import load_result
from consistency_lab.store.runs import Store
from consistency_lab.studies.fleet import Family, Fleet
from consistency_lab.training.settings import LoopSettings, TrainingSettings

COLOURS = 128  # of a png
PRESETS = ("digits", "fashion", "fashion-16", "cifar10", "paper")  # fashion-16 is raced alone
KINDS: dict[str, type[LoopSettings]] = {"diffusion": TrainingSettings, "GAN": GANSettings, "VAE": VAESettings}
METRICS = ("mse", "cosine")  # that claims are checked by, the first being the one that is drawn
RACES = ("standard", "pilot-free")  # whose speed-ups are drawn
PLANS: dict[str, Callable[[str], object]] = {**TABLES, "sizes": sizes_plan, "race": race_plan}


class Drawn(NamedTuple):
    """What a script makes: figures with their data by name ("" for the only one), and the sentence that they support."""

    figures: dict[str, tuple[Figure, pd.DataFrame]]
    sentence: str
    table: pd.DataFrame | None = None  # what has no room in a figure, for reading


@functools.lru_cache(maxsize=16)
def _race(path: Path, changed: int) -> xr.Dataset:
    """A race as it lies there since then: a page asks for the same ones a hundred times."""
    return load_result(path)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes:
        preset: on which data. folder: with PRESET/STUDY.jsonl. store: with models and results, for images and curves. result: a cached
            comparison, for the grid. data_dir: of published sets. older: where all rows are of an older version, draw them and say so.
        notes: what the rows that were read ask to be said of them.
    """

    preset: str
    folder: Path = Path("figures")
    store: Path | None = None
    result: Path | None = None
    data_dir: Path | None = None
    older: bool = False
    notes: dict[str, None] = field(default_factory=dict, compare=False)

    def rows(self, study: str, command: str | None = None) -> list[frames.Row]:
        """The finished rows of a study. Raises `MissingRows`, which names the command that makes them: `study` unless another is given."""
        try:
            path = self.folder / self.preset / f"{study}.jsonl"
            found = frames.current_rows(path, self.older)
            if self.older and not frames.is_current(path):
                self.notes[frames.OLDER] = None
        except frames.MissingRows as missing:
            raise self.missing(study, str(missing), command or f"study {study} --preset {self.preset}") from None
        if note := frames.old_rules(found):
            self.notes[note] = None
        return found

    def race(self, contestants: str) -> xr.Dataset:
        """The race's result. Raises `MissingRows`, which names the command that makes it."""
        path = self.folder / self.preset / f"race-{contestants}.nc"
        if not path.is_file():
            command = (
                f"race --preset {self.preset}{'' if contestants == 'standard' else f' --contestants {contestants}'}"
            )
            raise self.missing("race", f"there is no {path}", command)
        return _race(path, path.stat().st_mtime_ns)

    def races(self) -> dict[str, xr.Dataset]:
        """By the name that their figures have: the standard race (``""``), and the one without a pilot where it was run.

        Raises:
            MissingRows: neither was.
        """
        found = {}
        for contestants in RACES:
            if (self.folder / self.preset / f"race-{contestants}.nc").is_file():
                found["" if contestants == RACES[0] else contestants] = self.race(contestants)
        return found or {"": self.race(RACES[0])}

    def missing(self, study: str, what: str, command: str) -> frames.MissingRows:
        study = study.partition("-")[0]  # race-consistency and the others are of one plan
        try:
            PLANS[study](self.preset)
        except UserError as reason:
            return frames.MissingRows(f"{what}, and `consistency-lab {command}` cannot make them yet: {reason}")
        cost = f" {paper_cost(study)}" if self.preset == "paper" else ""
        return frames.MissingRows(f"{what}; `consistency-lab {command}` makes them.{cost}")

    def kind(self, family: str) -> str:
        """One of `KINDS`, by the settings of a family of the main table. Raises `UserError` for one that is not in it."""
        plan = likeness_plan(self.preset).families
        if family not in plan:
            raise UserError(
                f"the rows have a family {family!r}, which the main table of {self.preset!r} no longer has; remove them."
            )
        return next(kind for kind, settings in KINDS.items() if isinstance(plan[family][0], settings))

    def families(self) -> list[Family]:
        """The families of the preset's main table whose models are all in the store. Raises `MissingRows` if there is none."""
        assert self.store is not None
        plan = likeness_plan(self.preset)
        fleet = Fleet(plan_sets(plan, self.data_dir).images, plan.jobs, Store(self.store))
        done = {family: names for family, names in plan.members.items() if all(fleet.runs[name].done for name in names)}
        if not done:
            command = f"consistency-lab study likeness --preset {self.preset} --store {self.store}"
            raise frames.MissingRows(
                f"no family of {self.preset!r} is finished in the store {self.store}; `{command}` trains them."
            )
        return [fleet.family(family, names) for family, names in done.items()]


Produce = Callable[[Source], Drawn]


def main(produce: Produce, file: str, arguments: Sequence[str] | None = None) -> None:
    """Parse the options of a script, draw, save and say; a `UserError` ends in its sentence and exit status 2."""
    parser = argparse.ArgumentParser(description=(sys.modules[produce.__module__].__doc__ or "").strip())
    add_options(parser)
    given = parser.parse_args(arguments)
    try:
        source = source_of(given)
        with look(given.style, given.width, palette(given.palette)):
            finish(produce(source), Path(file).stem, given.out or given.rows / given.preset, list(source.notes))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="digits", help="on which data")
    parser.add_argument("--rows", type=Path, default=Path("figures"), help="folder with PRESET/STUDY.jsonl")
    parser.add_argument("--out", type=Path, help="folder of the figures; ROWS/PRESET by default")
    parser.add_argument("--store", type=Path, help="store with the preset's models: makes images and curves anew")
    parser.add_argument("--data-dir", type=Path, help="folder with the files of published sets, for --store")
    parser.add_argument("--older", action="store_true", help="draw rows of older versions where there are no others")
    parser.add_argument("--style", choices=("screen", "paper"), default="screen", help="paper: small text, exact width")
    parser.add_argument("--width", help="of a figure for paper: column (3.25 in), page (6.75 in), or inches")
    parser.add_argument("--palette", help="name of a palette of matplotlib or seaborn, or colours with commas")
    parser.add_argument("--result", type=Path, help="a comparison (.nc) whose images the same-noise grid shows")


def source_of(given: argparse.Namespace) -> Source:
    return Source(given.preset, given.rows, given.store, given.result, given.data_dir, given.older)


def palette(given: str | None) -> str | list[str] | None:
    """A palette as options say it: a name, or colours with commas between them."""
    return given.split(",") if given and "," in given else given


def finish(drawn: Drawn, script: str, out: Path, notes: Sequence[str] = ()) -> None:
    """Write ``figure-SCRIPT[-NAME]`` as png, pdf and csv, the table as ``table-SCRIPT.md``, and print the sentence.

    ``notes`` on the rows stand under every figure and behind the sentence.
    """
    for name, (figure, frame) in drawn.figures.items():
        if notes:
            note_below(figure, " ".join(notes))
        png, *_ = save_figure(figure, out / stem(script, name), frame)
        # They are committed: few colours are enough, and a third of the size.
        with Image.open(png) as picture:
            fewer = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        fewer.save(png, optimize=True)
    if drawn.table is not None:
        atomic_write(
            out / f"table-{hyphened(script)}.md", "\n\n".join([drawn.sentence, *notes, in_markdown(drawn.table)])
        )
    print(" ".join([drawn.sentence, *notes]), flush=True)


def stem(script: str, name: str = "") -> str:
    """The name of the files of a script's figure."""
    return f"figure-{hyphened(script)}{f'-{name}' if name else ''}"


def hyphened(script: str) -> str:
    return script.replace("_", "-")


def in_markdown(table: pd.DataFrame) -> str:
    lines = [list(table), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# How numbers are said.


def said(value: float, low: float, high: float, digits: int = 3) -> str:
    """``0.912 [0.901, 0.923]``; the interval is said to be missing where it is."""
    if not np.isfinite([low, high]).all():
        return f"{value:.{digits}g} (no interval)"
    return f"{value:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def of(row: pd.Series, column: str, digits: int = 3) -> str:
    """A number of a row with its interval."""
    return said(*interval_of(row, column), digits=digits)


def listed(texts: Iterable[str]) -> str:
    """``a, b and c``."""
    every = list(texts)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def relation(first: pd.Series, second: pd.Series, column: str) -> str:
    """Whether the first row's interval lies "above" or "below" the second's, or "overlaps" it (or cannot be told)."""
    bounds = [end for row in (first, second) for end in interval_of(row, column)[1:]]
    if not np.isfinite(bounds).all():
        return "cannot be told from"
    if bounds[0] > bounds[3]:
        return "lies above"
    return "lies below" if bounds[1] < bounds[2] else "overlaps"


def sweeps(rows: Sequence[frames.Row]) -> dict[str, pd.DataFrame]:
    """Of the sweep over the size of the training set: by architecture, without options that tell none apart, a row a size, its spec and
    values.

    Raises:
        MissingRows: there are none.
    """
    networks: dict[str, list[frames.Row]] = {}
    for row in rows:
        networks.setdefault(str(row["spec"].get("settings", {}).get("network", "models")), []).append(row)
    tables, bases = {}, [network.partition("(")[0] for network in networks]
    for (network, own), base in zip(networks.items(), bases, strict=True):
        alike = frames.measured_alike(own, "size")
        wide = pd.DataFrame([{**row["spec"], **row["values"]} for row in alike])
        tables[base if bases.count(base) == 1 else network] = wide.sort_values("size", ignore_index=True)
    return tables


def by_metric(rows: Sequence[frames.Row]) -> dict[str, pd.DataFrame]:
    """`frames.scores` by each of `METRICS` that the rows have: what is claimed has to hold by all of them."""
    known = frames.metrics_of(frames.families(rows))
    return {metric: frames.scores(rows, metric) for metric in METRICS if metric in known}


def hull(table: pd.DataFrame, column: str, kind: str) -> tuple[float, float] | None:
    """From the lowest to the highest end of the intervals of the rows of one of `KINDS`; None where there is none."""
    known = table[table["kind"] == kind].dropna(subset=interval_names(column))
    _, low, high = interval_of(known, column)
    return None if known.empty else (float(low.min()), float(high.max()))


def against(table: pd.DataFrame, column: str) -> list[str]:
    """``lower than GAN [a, b]`` ...: the hull of diffusion models against that of each other kind; nothing where one is unknown."""
    ours, texts = hull(table, column, "diffusion"), []
    for kind in list(KINDS)[1:]:
        theirs = hull(table, column, kind)
        if ours and theirs:
            verdict = "lower than" if ours[1] < theirs[0] else "higher than" if ours[0] > theirs[1] else "not told from"
            texts.append(f"{verdict} {kind} [{theirs[0]:.2g}, {theirs[1]:.2g}]")
    return texts


def claim(table: pd.DataFrame, column: str) -> str:
    """What is to be said of the claim that diffusion models have less of a number than other kinds."""
    ours, verdicts = hull(table, column, "diffusion"), against(table, column)
    if not ours or not verdicts:
        return "the claim that diffusion models have less is open: one kind alone is finished"
    worse = sum(not text.startswith("lower") for text in verdicts)
    holds = "fails" if worse == len(verdicts) else "holds in part" if worse else "holds"
    return f"the claim that diffusion models have less {holds}: theirs, [{ours[0]:.2g}, {ours[1]:.2g}], is {listed(verdicts)}"


def nested(values: object) -> pd.DataFrame:
    """A table that a row holds as a list of records."""
    return pd.DataFrame(values if isinstance(values, list) else json.loads(str(values)))
