"""The models that ship with the package, every two of them.

They are too few a family for an interval over models, and are trained for longer than a study's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import torch

from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.protocol import Protocol
from consistency_lab.paper.rows import Rows
from consistency_lab.studies.cost import seconds_of_model
from consistency_lab.zoo import FOLDER, open_zoo


def shipped_table(
    families: Mapping[str, Sequence[str]],
    rows: Rows,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The score of every two models that can be given the same noise.

    Args:
        families: name -> names of its models in the zoo.
        rows: where finished rows are kept.
        protocol: how they are compared.
        device: where.
        say: is told what happens.

    Returns:
        One row a pair: ``first, second`` (models), ``first_family, second_family``, ``diffusion`` (both are diffusion models), and for each
        metric ``score`` with its interval over noise, of these two models and no others, and ``median_distance``.

    Raises:
        UserError: the zoo has no such model.
    """
    family_of = {name: family for family, names in families.items() for name in names}
    opened = {name: open_zoo(name, device=device) for name in family_of}
    table = []
    for shape in dict.fromkeys(tuple(model.noise_shape) for model in opened.values()):
        group = [name for name, model in opened.items() if tuple(model.noise_shape) == shape]
        digests = [sha256((FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()[:12] for name in group]
        say(f"comparing {', '.join(group)}")
        spec = {"row": "shipped", "models": group, "files": digests, **protocol.spec}
        found = rows.row(spec, partial(_pairs, [opened[name] for name in group], protocol))
        for pair in found["pairs"]:
            first, second = pair["first"], pair["second"]
            sides = {"first_family": family_of[first], "second_family": family_of[second]}
            both = all(isinstance(opened[name], DiffusionModel) for name in (first, second))
            table.append({**pair, **sides, "diffusion": both})
    return pd.DataFrame(table)


def shipped_cost(
    families: Mapping[str, Sequence[str]], protocol: Protocol, device: str | torch.device
) -> dict[str, tuple[float, float]]:
    """Family -> seconds of training, which is none, and of sampling, from one step of its first model."""
    cost = {}
    for family, names in families.items():
        model = open_zoo(names[0], device=device)
        steps = protocol.sampler.evaluations() if isinstance(model, DiffusionModel) else 1
        cost[family] = (0.0, seconds_of_model(model) * protocol.count * steps * len(names))
    return cost


def _pairs(models: Sequence[GenerativeModel], protocol: Protocol) -> dict[str, Any]:
    last = protocol.compare(models).isel(t=-1)
    pairs = []
    for i in range(last.sizes["pair"]):
        one = last.isel(pair=i)
        values: dict[str, Any] = {key: models[int(one[key])].name for key in ("first", "second")}
        for metric in protocol.names:
            part = one.sel(metric=metric)
            values |= as_columns(f"{metric}_score", interval_of(part, "score"))
            values[f"{metric}_median_distance"] = float(np.median(part["distance"]))
        pairs.append(values)
    return {"pairs": pairs}
