"""docs/findings.md from its template and the committed rows: verdicts on claims, tables, and the numbers in its sentences.

Run it after rows were made: python analyses/make_findings.py (with --check it writes nothing, and fails if the page is out of date)
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import torch
from _claims import CLAIMS, Claim, Part, copies, ends, entry, ratio, schedule_of, twin, verdict
from _common import METRICS, Drawn, Source, in_markdown, listed, stem, sweeps
from make_results import RACES, STUDIES
from shipped import pairs

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.race.crossing import speedup
from consistency_lab.paper.race.table import AGAINST, MATCHED, crossings, finals_table, race_table
from consistency_lab.store.atomic import atomic_write
from consistency_lab.store.results import provenance

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "findings.md"
TEMPLATE = PAGE.with_suffix(".md.j2")
SETS = {"digits": "digits, 8x8", "fashion": "Fashion-MNIST, 28x28"}
RACED = {"digits": "digits, 8x8", "fashion-16": "Fashion-MNIST, 16x16"}  # of whole races
FREE_RACED = {**RACED, "fashion": SETS["fashion"]}  # of races without a pilot
NOT_MEASURED = "not measured"
FAMILIES = {
    "unet": "U-Nets", "dit": "transformers (DiT)", "mlp": "MLPs", ("unet", "dit"): "U-Net with DiT", ("unet", "mlp"): "U-Net with MLP",
    ("dit", "mlp"): "DiT with MLP", "gan": "GANs", "gan-image": "GANs, U-Net fed image-shaped noise", "vae": "VAEs",
}  # fmt: skip
CONTESTANTS = {
    "uniform, constant rate": "uniform",
    "uniform + annealing": "uniform + annealing",
    "uniform + linear decay to .1": "uniform + decay to .1",
    "uniform + MDLRC (momentum decay, compensated)": "uniform + MDLRC",
    "uniform + beta decay alone": "uniform + beta decay only",
    "uniform + Demon-Adam": "uniform + Demon-Adam",
    "CLTS + annealing": "CLTS + annealing",
    "its density at the end, all along": "CLTS + annealing{length}, at its end",
    "its average density, all along": "CLTS + annealing{length}, averaged",
    "the paper: CLTS + MDLRC": "paper: CLTS + MDLRC",
    "EDM log-normal + annealing": "EDM log-normal + annealing",
    "logit-normal + annealing": "logit-normal + annealing",
    "min-SNR + annealing": "min-SNR + annealing",
    "P2 + annealing": "P2 + annealing",
    "SpeeD + annealing": "SpeeD + annealing",
    "loss second moment, as published, + annealing": "loss second moment + annealing",
    "the same in 50 cells, floor .1 (ours)": "loss second moment, 50 cells + annealing",
    "**recipe: followed density**": "recipe, followed density",
    "the same at a constant rate": "recipe, followed density, constant rate",
    "the same with the measured momentum": "recipe, followed density, measured momentum",
    "the same at exponent 1": "recipe, followed density, exponent 1",
    "**recipe: fixed density**": "recipe, fixed density",
    "recipe: other objective, exponent 1": "recipe, other objective, exponent 1",
    "recipe: other objective, exponent 1/2": "recipe, other objective, exponent 0.5",
    "**the other set's recipe, followed**": "recipe from {foreign}-followed",
    "**the other set's recipe, fixed**": "recipe from {foreign}-fixed",
    "recipe of shuffled findings, fixed": "shuffled findings",
}
NAMED = {**FREE_RACED, "cifar10": "CIFAR-10, 32x32"}
IN_WORDS = {preset: label.replace(",", " at") for preset, label in NAMED.items()}
KINDS = {**AGAINST, "matched": MATCHED}  # of controls
# What a recipe was to reach: how many times sooner than which control, in steps and in seconds of training.
GOALS = {AGAINST["control"]: 2.6, AGAINST["annealed"]: 1.5, MATCHED: 1.5}


class Findings:
    """What the template asks: rows of both sets as numbers, tables and verdicts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = {preset: Source(preset, folder, older=True) for preset in NAMED}

    @functools.cache  # noqa: B019  one object a page
    def own(self, preset: str, study: str) -> dict[Any, dict[str, Any]]:
        """The rows of families by name and of two families by both names; none where a study has no rows."""
        try:
            rows = self.sources[preset].rows(study)
        except frames.MissingRows:
            return {}
        families, crosses = frames.families(rows).to_dict("records"), frames.crosses(rows).to_dict("records")
        return {row["family"]: row for row in families} | {(row["first"], row["second"]): row for row in crosses}

    @functools.cache  # noqa: B019
    def probe(self, preset: str, name: str) -> pd.DataFrame:
        return frames.probes(self.sources[preset].rows("why"), name).set_index("name")

    @functools.cache  # noqa: B019
    def raced(self, preset: str, contestants: str = "standard") -> pd.DataFrame:
        return race_table(self.sources[preset].race(contestants))

    @functools.cache  # noqa: B019
    def drawn(self, preset: str, script: str) -> Drawn:
        return importlib.import_module(script).produce(self.sources[preset])  # type: ignore[no-any-return]

    @functools.cache  # noqa: B019
    def parts(self, claim: Claim, preset: str) -> list[Part]:
        """Empty where nothing was measured."""
        try:
            return claim.parts(self.sources[preset])
        except frames.MissingRows:
            return []

    def evidence(self, claim: Claim) -> str:
        """A paragraph a set: the verdict, its parts with their numbers, the figure, and the command that makes the rows."""
        paragraphs = []
        for preset, name in _sets_of(claim).items():
            parts = self.parts(claim, preset)
            if not parts:
                continue
            told = [
                f"{word}: {'; '.join(part.text for part in parts if part.holds is sign)}"
                for sign, word in ((True, "Holds"), (False, "The opposite holds"), (None, "Not told"))
                if any(part.holds is sign for part in parts)
            ]
            figure = f"[figure](../figures/{preset}/{stem(claim.script)}.png)"
            command = f"`consistency-lab {claim.command.format(preset=preset)}`"
            paragraphs.append(f"* *{name}*: **{verdict(parts)}**. {'. '.join(told)}. {figure}, {command}")
        return "\n".join(paragraphs)

    def notes(self) -> str:
        """Which studies' rows were made by an older version or by other rules, and what that means."""
        found: dict[str, list[str]] = {}
        for preset, source in self.sources.items():
            for study in (*STUDIES, *(f"race-{name}" for name in RACES)):
                own = replace(source, notes={})
                with contextlib.suppress(frames.MissingRows):
                    own.rows(study)
                for note in own.notes:
                    found.setdefault(note, []).append(f"`{study}` of {IN_WORDS[preset]}")
        return "\n".join(f"* {', '.join(studies)}: {note}" for note, studies in found.items())

    def claims(self) -> str:
        """The table of all verdicts."""
        lines = []
        for key, claim in CLAIMS.items():
            line = {"claim": f"[{claim.said}](#{key})", "by": claim.source}
            for preset, name in _sets_of(claim).items():
                parts = self.parts(claim, preset)
                line[name.split(",")[0]] = verdict(parts) if parts else NOT_MEASURED
            lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    # Tables.

    def families(self) -> str:
        """Scores by squared error and by cosine, distances and quality, of families and of two families."""
        lines = []
        for key, name in FAMILIES.items():
            line = {"models": name}
            for preset, label in SETS.items():
                row = self.own(preset, "likeness").get(key)
                line |= {f"{label}: score": _score(row, "mse"), "by cosine " + label: _score(row, "cosine")}
                line |= {"Frechet " + label: _frechet(row)}
            lines.append(line)
        return self._renamed(lines)

    def distances(self) -> str:
        lines = []
        for key, name in FAMILIES.items():
            line = {"models": name}
            for preset, label in SETS.items():
                row = self.own(preset, "likeness").get(key)
                line[f"{label}: median; mean distance"] = _distances(row)
            lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def table(self, preset: str, study: str, names: dict[str, Any]) -> str:
        """One set's rows: score, score by cosine, distances and, where it is known, quality."""
        lines = []
        for name, key in names.items():
            row = self.own(preset, study)[tuple(key) if isinstance(key, list) else key]
            line = {"models": name, "score": _score(row, "mse"), "by cosine": _score(row, "cosine")}
            lines.append({**line, "median; mean distance": _distances(row), "Frechet": _frechet(row)})
        table = pd.DataFrame(lines)
        return in_markdown(table if table["Frechet"].any() else table.drop(columns="Frechet"))

    def swept(self, preset: str) -> bool:
        """Whether there are models of disjoint sets of several sizes."""
        try:
            return bool(self.sources[preset].rows("sizes"))
        except frames.MissingRows:
            return False

    def sizes(self, preset: str) -> str:
        lines = []
        for network, wide in sweeps(self.sources[preset].rows("sizes")).items():
            for row in wide.to_dict("records"):
                share = ends(copies(row)) if row["copies_high"] else f"none of {row['count']}"
                line = {"network": network, "images a set": str(row["size"])}
                line |= {"score across sets": ends(interval_of(row, "between")), "share of copies": share}
                line |= {"score within a set": ends(interval_of(row, "within"))}
                if "predicted" in row:
                    line["linear, in theory"] = ends(interval_of(row, "predicted"))
                    for name in ("gaussian", "local", "optimal"):
                        if f"explained_{name}" in row:
                            line[f"explained: {name}"] = ends(interval_of(row, f"explained_{name}"), 2)
                lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def sampling(self) -> str:
        """What is shared of the noise, of both sets; nothing for a set that has no rows."""
        lines: dict[tuple[str, str, str], dict[str, str]] = {}
        for preset, label in SETS.items():
            try:
                rows = frames.measured_alike(self.sources[preset].rows("sampling"), "sampling")
            except frames.MissingRows:
                continue
            for row in rows:
                spec = row["spec"]
                key = (spec["family"], spec["shared"], spec["method"])
                line = lines.setdefault(key, dict(zip(("models", "shared", "sampler"), key, strict=True)))
                line[f"{label}: score"] = ends(interval_of(row["values"], "mse_score"))
                line[f"{label}: by cosine"] = ends(interval_of(row["values"], "cosine_score"))
        return in_markdown(pd.DataFrame(list(lines.values())).fillna(""))

    def shipped(self, preset: str) -> str:
        """Every two models of the zoo, by both metrics."""
        lines = []
        rows = self.sources[preset].rows("zoo")
        tables = {metric: pairs(rows, metric).set_index("name") for metric in METRICS}
        for name, row in tables[METRICS[0]].iterrows():
            line = {"models": row["group"], "pair": str(name).replace(" | ", " with ")}
            lines.append(line | {metric: ends(interval_of(tables[metric].loc[name], "score")) for metric in METRICS})
        return in_markdown(pd.DataFrame(lines))

    def guidance(self, preset: str) -> str:
        """Of class-conditional families over scales of guidance, beside unconditional ones."""
        own = self.own(preset, "guidance")
        return self.table(preset, "guidance", {name: name for name in sorted(own)})

    def again(self, preset: str, studies: Sequence[str]) -> tuple[str, float]:
        """Scores of families beside those of a second run (rows in ``again/``), and the largest difference."""
        second, lines, apart = Source(preset, self.folder / "again", older=True), [], 0.0
        for study in studies:
            for row in frames.families(second.rows(study)).to_dict("records"):
                first, found = interval_of(self.own(preset, study)[row["family"]], "mse_score"), row["mse_score"]
                inside = "yes" if first.low <= found <= first.high else "no"
                lines.append(
                    {
                        "study": study,
                        "models": row["family"],
                        "score": ends(first, 4),
                        "second run": ends((found, math.nan, math.nan), 4),
                        "inside": inside,
                    }
                )
                apart = max(apart, abs(found - first.estimate) if row["diffusion"] else 0.0)
        return in_markdown(pd.DataFrame(lines)), apart

    def smoothness(self) -> str:
        numbers = {"roughness": 3, "relative_curvature": 1, "predictiveness": 2}
        found = {preset: self.probe(preset, "line") for preset in SETS}
        names = list(dict.fromkeys(name for table in found.values() for name in table.index))
        lines = []
        for name in names:
            line = {"model": name}
            for preset, table in found.items():
                for number, digits in numbers.items():
                    text = ends(interval_of(table.loc[name], number), digits) if name in table.index else ""
                    line[f"{SETS[preset]}: {number.replace('_', ' ')}"] = text
            lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def race(self) -> str:
        """Crossings and speed-ups of every contestant, each entry at its fastest length."""
        lines = []
        for name, pattern in CONTESTANTS.items():
            line = {"contestant": name}
            for preset, label in RACED.items():
                (foreign,) = set(RACED) - {preset}
                rows = self.raced(preset)
                wanted = pattern.format(foreign=foreign, length=", 750 steps" if preset == "digits" else "")
                own = rows[(rows["entry"] == wanted) & rows["fastest"]].set_index("against")
                first = own.loc[AGAINST["control"]]
                line[f"{label}: steps"] = f"{'> ' if first['censored'] else ''}{first['crossing']:.0f}"
                for against, words in (("control", "than uniform"), ("annealed", "than annealed uniform")):
                    line[f"{label}: sooner {words}"] = _times(own.loc[AGAINST[against]])
            lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def free(self, preset: str) -> str:
        """Everybody of the race without a pilot, each entry at its fastest length."""
        table, recipe = self.raced(preset, "pilot-free"), self.recipe(preset)
        lines = []
        for name, own in table[table["fastest"]].groupby("entry", sort=False):
            by, first = own.set_index("against"), own.iloc[0]
            line = {"contestant": f"**{name}**" if name == recipe else str(name)}
            line |= self.ran(preset, str(first["contestant"]))
            line["steps"] = f"{'> ' if first['censored'] else ''}{first['crossing']:.0f}"
            for against in (*GOALS, AGAINST["density"]):
                line[f"sooner than {against}"] = _times(by.loc[against]) if against in by.index else ""
            line["Frechet at its end"] = self.frechet(preset, str(first["contestant"]))
            lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def goals(self, contestants: str = "pilot-free") -> str:
        """The recipe without a pilot against what it was to reach, a line for each control and unit; in that race or on fresh seeds."""
        lines = []
        for against, goal in GOALS.items():
            for unit, prefix in (("steps", ""), ("seconds", "pilot_seconds_")):  # with those of making the recipe
                line = {"times sooner than": f"{against}, in {unit}", "goal": f"{goal:g}"}
                for preset, label in self.free_races(contestants).items():
                    row = self._free(preset, contestants=contestants).loc[against]
                    line[label] = f"{_times(row, prefix)}: {_reached(row, prefix, goal)}"
                lines.append(line)
        return in_markdown(pd.DataFrame(lines))

    def free_races(self, contestants: str = "pilot-free") -> dict[str, str]:
        """The sets of which there is a race without a pilot, or one on fresh seeds, with their labels."""
        files = {p: self.sources[p].folder / p / f"race-{contestants}.nc" for p in FREE_RACED}
        return {p: label for p, label in FREE_RACED.items() if files[p].is_file()}

    def sooner_on(self, preset: str, entry: str, kind: str, seconds: bool = False) -> str:
        """An entry of the race without a pilot against a kind of control, on one set."""
        return _times(self._free(preset, entry).loc[KINDS[kind]], "seconds_" if seconds else "")

    def head_start(self, preset: str) -> str:
        """The target of the race without a pilot as a share of the Gaussian denoiser's loss, which needs no training."""
        race = self.sources[preset].race("pilot-free")
        loss = race["reference_value"].sel(reference="Gaussian denoiser").values[0]
        return f"{float(race['target_loss'].values[-1]) / float(loss):.2f}"

    def made(self, preset: str) -> str:
        """Seconds in which the recipe without a pilot is made."""
        race = self.sources[preset].race("pilot-free")
        return f"{float(race['pilot_seconds'].max()):.2f} s"

    def seeds(self, preset: str, contestants: str = "pilot-free") -> int:
        return int(self.sources[preset].race(contestants).sizes["seed"])

    def ran(self, preset: str, contestant: str) -> dict[str, str]:
        """The learning rate and the length of a contestant's runs in the race without a pilot."""
        race = self.sources[preset].race("pilot-free")
        settings = provenance(race)["settings"][contestant]
        return {"rate": f"{settings['lr']:g}", "of": f"{settings['steps']}"}

    @functools.cache  # noqa: B019
    def finals(self, preset: str, contestants: str = "pilot-free") -> pd.DataFrame:
        return finals_table(self.sources[preset].race(contestants)).set_index("contestant")

    def frechet(self, preset: str, contestant: str, contestants: str = "pilot-free") -> str:
        """Of the samples at the end of the runs of a contestant, or of a reference."""
        return ends(interval_of(self.finals(preset, contestants).loc[contestant], "frechet"), 1)

    def at_best_rate(self, preset: str, raced: str) -> str:
        """An entry of the standard race against the control of the one without a pilot, uniform Adam at its best rate: the seeds and
        the target are the same."""
        standard, free = (self.sources[preset].race(name) for name in ("standard", "pilot-free"))
        target = float(standard["target"].values[-1])
        same = np.isclose(*(float(race["target_loss"].sel(target=target)) for race in (standard, free)), rtol=1e-4)
        if not same or standard["seed"].values.tolist() != free["seed"].values.tolist():
            raise ValueError(f"the races of {preset} differ in seeds or target, so that they cannot be compared.")
        own = crossings(standard, entry(self.sources[preset], raced), target)
        return ends(speedup(crossings(free, str(free.attrs["control"]), target), own)[:3], 2)

    def at_one_rate(self, preset: str, name: str) -> str:
        """An entry of the race without a pilot against the fastest annealed run, both at the rate that uniform times were tuned to."""
        race = self.sources[preset].race("pilot-free")
        tuned = [str(each) for each in race["contestant"].values if ", rate " not in str(each)]
        table = race_table(race.sel(contestant=tuned))
        own = table[(table["entry"] == name) & table["fastest"] & (table["against"] == AGAINST["annealed"])]
        return _times(own.iloc[0])

    def beside(self, first: str, second: str, seconds: bool = False) -> str:
        """How many times as fast as another entry one is in the race without a pilot, on every set that has both."""
        told = []
        for preset in self.free_races():
            source = self.sources[preset]
            with contextlib.suppress(frames.MissingRows):
                names = [entry(source, name, "pilot-free") for name in (first, second)]
                told.append(f"{ends(ratio(source, *names, 'pilot-free', seconds), 2)} on {IN_WORDS[preset]}")
        return listed(told)

    def reached(self, preset: str) -> str:
        """From which target on the recipe of the standard race is as fast as it was to be, against both controls."""
        rows = self.drawn(preset, "speedup_curve").figures[""][1]
        own = rows[rows["contestant"].str.startswith("recipe") & rows["qualified"] & rows["against"].isin(GOALS)]
        good = {
            fraction: all(_enough(row, "", GOALS[row["against"]]) for _, row in part.iterrows())
            for fraction, part in own.groupby("fraction")
        }
        first = next((at for at in good if all(fine for later, fine in good.items() if later >= at)), None)
        return "at no target" if first is None else f"from the target {first:g} on"

    def sooner(self, entry: str, kind: str, seconds: bool = False) -> str:
        """An entry of the race without a pilot against a kind of control, on every set: ``1.8 [1.7, 1.9] on digits at 8x8 and ...``."""
        with_it = [preset for preset in self.free_races() if KINDS[kind] in self._free(preset, entry).index]
        return listed([f"{self.sooner_on(preset, entry, kind, seconds)} on {IN_WORDS[preset]}" for preset in with_it])

    def recipe(self, preset: str) -> str:
        """The entry of the recipe of the race without a pilot, which differs between sets."""
        rows = self.raced(preset, "pilot-free")
        (entry,) = rows[rows["role"] == "recipe"]["entry"].unique()
        return str(entry)

    def _free(self, preset: str, entry: str = "", contestants: str = "pilot-free") -> pd.DataFrame:
        rows = self.raced(preset, contestants)
        return rows[(rows["entry"] == (entry or self.recipe(preset))) & rows["fastest"]].set_index("against")

    def targets(self, name: str = "") -> str:
        """The leading recipe's speed-up over targets, of the races whose figures have that name."""
        lines = []
        for preset, label in (self.free_races() if name else RACED).items():
            rows = self.drawn(preset, "speedup_curve").figures[name][1]
            raced = self.raced(preset, name or "standard")
            leading = rows["contestant"].isin(raced[raced["role"] == "recipe"]["contestant"])
            for against in rows[leading]["against"].unique():
                own = rows[leading & (rows["against"] == against) & rows["qualified"]]
                cells = {f"{row['fraction']:g}": _times(row) for _, row in own.iterrows()}
                lines.append({"target: share of a uniform run's steps": f"{label}: than {against}", **cells})
        first, *fractions = (table := pd.DataFrame(lines).fillna("")).columns
        return in_markdown(table[[first, *sorted(fractions, key=float)]])

    # Numbers in sentences.

    def pairs(self, preset: str) -> dict[str, Any]:
        """The lowest score of a pair of diffusion models, the highest of a pair within GANs and VAEs, and how many there are."""
        diffusion, others = [], []
        own = self.own(preset, "likeness")
        for values in self._pair_rows(preset):
            kinds = [name.rpartition("-")[0] for name in values["names"]]
            for i, j, score in zip(values["first"], values["second"], values["score"], strict=True):
                trained = [own[kinds[k]]["diffusion"] for k in (i, j)]
                if all(trained):
                    diffusion.append(score)
                elif not any(trained) and kinds[i] == kinds[j]:
                    others.append(score)
        return {"lowest": min(diffusion), "highest": max(others), "diffusion": len(diffusion), "others": len(others)}

    def outside(self, preset: str) -> dict[str, float]:
        """The largest share of final pixels beyond [-1.5, 1.5] of a model's samples, by family."""
        found: dict[str, float] = {}
        for values in self._pair_rows(preset):
            for name, share in zip(values["names"], values["outside"], strict=True):
                family = name.rpartition("-")[0]
                found[family] = max(found.get(family, 0.0), share)
        return found

    def _pair_rows(self, preset: str) -> list[Any]:
        return [row["values"] for row in self.sources[preset].rows("likeness") if row["spec"]["row"] == "pairs"]

    def protocol(self, preset: str, study: str) -> str:
        """``256 samples, 25 steps of ddim, 4 models a family``."""
        spec = frames.measured_alike(self.sources[preset].rows(study), "family")[-1]["spec"]
        sampler = spec["sampler"]
        return f"{spec['count']} samples, {sampler['steps']} steps of {sampler['method'].upper()}, {len(spec['models'])} models a family"

    def middle(self, preset: str) -> str:
        """The log-SNR at t = 0.5 of the schedule of the first family, and its name."""
        schedule = schedule_of(self.sources[preset], "unet")
        level = float(schedule.log_snr(torch.tensor(0.5, dtype=torch.float64)))
        return f"{ends((level, math.nan, math.nan), 1)} on {SETS[preset].split(',')[0]} ({schedule.spec.partition('(')[0]})"

    def ratio(self, preset: str, first: str, second: str) -> str:
        """How many times as fast the first contestant is as the second."""
        return ends(ratio(self.sources[preset], first, second), 2)

    def twin(self, preset: str) -> str:
        """CLTS against the density of its end."""
        return ends(twin(self.sources[preset]), 2)

    def piloted(self, preset: str, kind: str) -> str:
        """The recipe's speed-up with its pilot counted."""
        rows = self.raced(preset)
        own = rows[(rows["entry"] == "recipe, followed density") & rows["fastest"]].iloc[0]
        return ends(interval_of(own, f"{kind}speedup"), 2)

    def entry(self, preset: str, name: str) -> str:
        return entry(self.sources[preset], name)

    def said(self, preset: str, study: str, key: Any, column: str, digits: int = 3) -> str:
        """A number of a family, or of two, with its interval."""
        return ends(interval_of(self.own(preset, study)[tuple(key) if isinstance(key, list) else key], column), digits)

    @staticmethod
    def _renamed(lines: Sequence[dict[str, str]]) -> str:
        """Columns of the second measure are named by it alone: Markdown's may repeat, a frame's may not."""
        table = pd.DataFrame(lines)
        return in_markdown(
            table.rename(columns=lambda name: next((m for m in ("by cosine", "Frechet") if name.startswith(m)), name))
        )


def _sets_of(claim: Claim) -> dict[str, str]:
    return RACED if claim.command.startswith("race") else SETS


def _score(row: dict[str, Any] | None, metric: str) -> str:
    if row is None:
        return ""
    text = ends(interval_of(row, f"{metric}_score"))
    return f"{text} unfit" if row.get("fit") is False else text


def _frechet(row: dict[str, Any] | None) -> str:
    value, low, high = interval_of(row or {}, "frechet", math.nan)
    # Below 0 no distance lies.
    return "" if math.isnan(value) else ends((value, max(low, 0.0), high), 1)


def _distances(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['mse_median_distance']:.3f}; {row['mse_distance']:.3f}"


def _enough(row: pd.Series, prefix: str, goal: float) -> bool | None:
    """Whether a speed-up is as large as it was to be; None where a bound on one side does not tell."""
    estimate, bound = float(row[f"{prefix}speedup"]), row[f"{prefix}bound"]
    if bound == "unknown":
        return None
    enough = estimate >= goal
    return None if bound and enough != (bound == "at least") else enough


def _reached(row: pd.Series, prefix: str, goal: float) -> str:
    """The same in words, with what its interval says."""
    enough, found = _enough(row, prefix, goal), interval_of(row, f"{prefix}speedup")
    if enough is None:
        return "unknown" if row[f"{prefix}bound"] == "unknown" else "not told"
    if found.low < goal <= found.high:
        return f"{'above' if enough else 'below'}, its interval holds the goal"
    return "reached" if enough else "missed"


def _times(row: pd.Series, prefix: str = "") -> str:
    if row[f"{prefix}bound"] == "unknown":
        return "unknown"
    bound = {"at most": "≤ ", "at least": "≥ "}.get(row[f"{prefix}bound"])
    own = interval_of(row, f"{prefix}speedup")
    return f"{bound}{own[0]:.2f}" if bound else ends(own, 2)


def page(folder: Path) -> str:
    """The text of docs/findings.md by the rows in a folder."""
    found = Findings(folder)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    names = {"f": found, "claims": CLAIMS, "sets": SETS}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**names)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=Path, default=ROOT / "figures", help="folder with PRESET/STUDY.jsonl")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is out of date")
    given = parser.parse_args(arguments)
    text = page(given.rows)
    if given.check:
        if text != PAGE.read_text(encoding="utf-8"):
            print(f"{PAGE.name} is out of date; run python analyses/make_findings.py", file=sys.stderr)
            raise SystemExit(1)
        return
    atomic_write(PAGE, text)
    say(str(PAGE))


if __name__ == "__main__":
    main()
