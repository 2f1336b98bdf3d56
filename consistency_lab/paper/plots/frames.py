"""The finished rows of studies as frames: what the figures over families, steps, sizes and probes draw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from consistency_lab.errors import UserError
from consistency_lab.intervals import as_columns, as_value, interval_names, interval_of
from consistency_lab.paper.likeness import LEAST_COVERED, WORST_QUALITY
from consistency_lab.paper.rows import Rows
from consistency_lab.store.spec import MEASURES_VERSION

# What tells rows of one table apart; everything else in a spec is how they were measured.
IDENTITY = ("row", "family", "families", "models", "step", "probe", "part", "size", "shared", "method")
# Rows that hold numbers of comparisons and probes.
MEASURED = ("family", "cross", "pairs", "emergence", "sampling", "size", "why")
OLDER = "Trained and sampled by an older version of this package, to be made again."
Row = Mapping[str, Any]


class MissingRows(UserError):
    """A study that has no finished rows that can be drawn."""


def current_rows(path: str | Path, older: bool = False) -> list[Row]:
    """The rows of this numerics version, in the order in which they were finished.

    Args:
        path: of the rows. older: where there are none, those of older versions (`OLDER` is to be said of them).

    Raises:
        MissingRows: there is no file, or no such row in it. StoreError: it cannot be read.
    """
    path = Path(path)
    rows = Rows(path)
    if not len(rows):
        raise MissingRows(f"there are no rows in {path}")
    lines = rows.finished()
    current: list[Row] = [line for line in lines if rows.key(line["spec"]) == line["key"]]
    if not current and older:
        return list(lines)
    if not current:
        raise MissingRows(f"all {len(lines)} rows in {path} were made by an older version")
    return current


def is_current(path: str | Path) -> bool:
    """Whether there are rows of this numerics version."""
    rows = Rows(path)
    return any(rows.key(line["spec"]) == line["key"] for line in rows.finished())


def old_rules(rows: Sequence[Row]) -> str:
    """A sentence where some of the rows were measured by the rules of an older `MEASURES_VERSION`; empty where none was."""
    specs = [row["spec"] for row in rows if row["spec"].get("row") in MEASURED]
    old = sorted({int(spec.get("measures_version", 1)) for spec in specs} - {MEASURES_VERSION})
    if not old:
        return ""
    return (
        f"Rows of measures version {', '.join(map(str, old))}: measured by other rules than today's, to be made again."
    )


def measured_alike(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows of a kind that were measured as its last one was; of several with one identity the last; of a family, of its last models.

    A file may hold tables of several sample counts or samplers; numbers of different ones do not belong into one figure.

    Raises:
        MissingRows: there are none of that kind.
    """
    those = [row for row in rows if row["spec"].get("row") == kind]
    if not those:
        raise MissingRows(f"there are no rows of the kind {kind!r}")
    protocol = _protocol(those[-1])
    alike = [row for row in those if _protocol(row) == protocol]
    latest = {row["spec"].get("family"): row["spec"].get("models") for row in alike}
    chosen = {_who(row): row for row in alike if row["spec"].get("models") == latest[row["spec"].get("family")]}
    return list(chosen.values())


def families(rows: Sequence[Row], kind: str = "family") -> pd.DataFrame:
    """One row a family (and step, for ``kind="emergence"``) with its values, with those of its quality where that was measured.

    ``diffusion``: the family has a way from noise to data. ``fit``: False for a contrast family whose Frechet distance is more than
    `WORST_QUALITY` times the best diffusion family's or that covers less than `LEAST_COVERED` of the classes, None where unknown.
    """
    table = []
    qualities = [row for row in rows if row["spec"].get("row") == "quality"]
    for row in measured_alike(rows, kind):
        spec, values = row["spec"], row["values"]
        own = [each["values"] for each in qualities if each["spec"]["models"] == spec["models"]]
        facts = {"family": spec["family"], "models": len(spec["models"]), "step": spec.get("step")}
        said = {**_said_by_names(values), **values}
        table.append({**facts, "diffusion": bool(said["curves"]), **said, **(own[-1] if own else {})})
    frame = pd.DataFrame(table)
    frame["fit"] = pd.Series([None] * len(frame), dtype=object)
    if "frechet" in frame and frame["diffusion"].any():
        best = frame.loc[frame["diffusion"], "frechet"].min()
        good = (frame["frechet_worst"] <= WORST_QUALITY * best) & (frame["covered"] >= LEAST_COVERED * frame["classes"])
        known = frame["frechet"].notna() & np.isfinite(best)
        fit = (
            (diffusion or bool(well)) if sure else None
            for diffusion, well, sure in zip(frame["diffusion"], good, known, strict=True)
        )
        frame["fit"] = pd.Series(list(fit), dtype=object)
    return frame


def crosses(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a pair of families, ``first, second`` and the values: of the models, measured as those, that `families` gives.

    Columns alone where there are no such pairs.
    """
    members = {row["spec"]["family"]: row for row in measured_alike(rows, "family")}
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        spec = row["spec"]
        if spec.get("row") != "cross" or not set(spec["families"]) <= set(members):
            continue
        first, second = spec["families"]
        own = [members[first]["spec"]["models"], members[second]["spec"]["models"]]
        if spec["models"] == [*own[0], *own[1]] and _protocol(row) == _protocol(members[first]):
            table[first, second] = {"first": first, "second": second, **row["values"]}
    return pd.DataFrame(list(table.values())) if table else pd.DataFrame(columns=["first", "second"])


GROUPS = ("within diffusion", "between diffusion", "within GAN, VAE", "between GAN, VAE", "diffusion with GAN, VAE")


def scores(rows: Sequence[Row], metric: str = "mse") -> pd.DataFrame:
    """Families and pairs of families on one axis, the most alike of each group first.

    Columns group (one of `GROUPS`), name, score, score_low, score_high, median (of the distances: a few exploded samples do not move it),
    ceiling (score of a model with itself at another step count), p (of the label permutation by this metric at the last noise level) and
    p_any, frechet with its ends, fit: a pair is unfit if one of its families is.
    """
    own, both = families(rows), crosses(rows)
    fit = dict(zip(own["family"], own["fit"], strict=True))
    diffusion = dict(zip(own["family"], own["diffusion"], strict=True))
    table = []
    for row in _records(own):
        ceiling, null = row.get(f"{metric}_ceiling", np.nan), row[f"{metric}_null"]
        facts = as_columns("frechet", interval_of(row, "frechet", np.nan))
        facts |= {"fit": row["fit"], "ceiling": 1 - ceiling / null if null else np.nan}
        group = GROUPS[0] if row["diffusion"] else GROUPS[2]
        table.append({"group": group, "name": row["family"], **_score(row, metric), **facts})
    for row in _records(both):
        kinds = {diffusion[row["first"]], diffusion[row["second"]]}
        group = GROUPS[4] if len(kinds) == 2 else GROUPS[1] if kinds == {True} else GROUPS[3]
        name = f"{row['first']} | {row['second']}"
        tests = {"p": row.get(f"{metric}_p", np.nan), "p_any": row.get("p_any", np.nan)}
        table.append({"group": group, "name": name, **_score(row, metric), **tests})
        table[-1]["fit"] = False if False in (fit[row["first"]], fit[row["second"]]) else None
    columns = ["group", "name", *interval_names("score"), "median", "ceiling", "p", "p_any"]
    columns += [*interval_names("frechet"), "fit"]
    frame = pd.DataFrame(table).reindex(columns=columns)
    order = frame["group"].map(GROUPS.index)
    return (
        frame.assign(o=order)
        .sort_values(["o", "score"], ascending=[True, False])
        .drop(columns="o")
        .reset_index(drop=True)
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _said_by_names(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """``curves`` and ``references`` of rows of versions that said them in the names of their values alone."""
    curves = [name.removesuffix("_along_t") for name in values if name.endswith("_along_t")]
    residuals = [name.removeprefix("residual_after_") for name in values if name.startswith("residual_after_")]
    return {"curves": curves, "references": residuals}


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The metrics of whose scores a table of families has curves over noise levels."""
    return sorted(set(chain.from_iterable(table["curves"])))


def along_t(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Columns name, t, log_snr, value, low, high: the score of each diffusion family of `families` over noise levels."""
    parts = []
    for row in table[table["diffusion"]].to_dict("records"):
        curve = row.get(f"{metric}_along_t")
        if isinstance(curve, dict):
            grid = {key: np.array(curve[key], dtype=float) for key in ("t", "log_snr")}
            parts.append(pd.DataFrame({"name": row["family"], **grid, **as_value(interval_of(curve, "score"))}))
    columns_of = ["name", "t", "log_snr", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns_of)


def references_of(table: pd.DataFrame) -> list[str]:
    """The closed-form denoisers that a table of families was compared with."""
    return sorted(set(chain.from_iterable(table["references"])))


def probe_rows(rows: Sequence[Row], probe: str) -> list[Row]:
    """The rows of a probe of the study of causes, measured alike: one a family, and network of a GAN.

    Raises:
        MissingRows: nobody was probed so.
    """
    answers = [row for row in rows if row["spec"].get("row") == "why" and row["spec"]["probe"] == probe]
    if not answers:
        raise MissingRows(f"there are no rows of the probe {probe!r}")
    return measured_alike(answers, "why")


def probed(spec: Mapping[str, Any]) -> str:
    """Who was probed: the family, with the network of a GAN."""
    return f"{spec['family']}, {spec['part']}" if spec.get("part") else str(spec["family"])


def probes(rows: Sequence[Row], probe: str) -> pd.DataFrame:
    """`probe_rows` as a table: ``family, part, name`` and the numbers of the probe. Raises `MissingRows` where there are none."""
    table = []
    for row in probe_rows(rows, probe):
        spec = row["spec"]
        facts = {"family": spec["family"], "part": spec.get("part"), "name": probed(spec)}
        table.append({**facts, **row["values"]})
    return pd.DataFrame(table)


def _score(row: Row, metric: str) -> dict[str, float]:
    found = as_columns("score", interval_of(row, f"{metric}_score"))
    return {**found, "median": row.get(f"{metric}_median_distance", np.nan)}


def _protocol(row: Row) -> str:
    own = {key: value for key, value in row["spec"].items() if key not in IDENTITY}
    return json.dumps(own, sort_keys=True)


def _who(row: Row) -> str:
    own = {key: value for key, value in row["spec"].items() if key in IDENTITY and key != "models"}
    return json.dumps(own, sort_keys=True)
