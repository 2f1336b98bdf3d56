"""The paper's figure 1: images of every model from the same noise, of a store's models or of a cached comparison."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.plots import frames
from consistency_lab.plots.gallery import gallery, gallery_rows, grid
from consistency_lab.plots.reading import headline_metric
from consistency_lab.similarity.compare import compare
from consistency_lab.store.results import load_result

COLUMNS, COUNT = 10, 32  # images of a row, and of the scores in the sentence


def from_result(source: Source) -> Drawn:
    assert source.result is not None
    comparison = load_result(source.result)
    metric = headline_metric(comparison)
    table = frames.overview(comparison, metric)
    family = table[table["group"] == "family"].iloc[0]
    sentence = (
        f"{comparison.sizes['model']} models draw from the same noise images that score {of(family, 'score')} by {metric} "
        f"(0 = other noise, 1 = same image; {family['interval']})."
    )
    return Drawn({"": (gallery(comparison), table)}, sentence)


def from_store(source: Source) -> Drawn:
    """Of every family of the preset whose models are all in the store."""
    assert source.store is not None
    rows, tables, parts = [], [], []
    for family, models in source.families():
        sampler = Sampler(steps=25)
        found = compare(
            models,
            SharedNoise(0),
            count=COUNT,
            metrics=("mse",),
            sampler=sampler,
            levels=2,
            shown=COLUMNS,
            ceiling=False,
        )
        rows += gallery_rows(found)
        tables.append(frames.overview(found, "mse").assign(models=family))
        parts.append(f"{family} {of(tables[-1].iloc[0], 'score')}")
    sentence = f"From the same noise, models of a family draw images that score (mse, {COUNT} samples, over models): {listed(parts)}."
    table = pd.concat(tables, ignore_index=True)
    return Drawn({"": (grid(rows, "same noise in each column of a family", COLUMNS), table)}, sentence)


def produce(source: Source) -> Drawn:
    if source.result is not None:
        return from_result(source)
    if source.store is None:
        raise UserError(
            "the grid needs images: give --store DIR with the preset's models, or --result FILE.nc of a comparison."
        )
    return from_store(source)


if __name__ == "__main__":
    main(produce, __file__)
