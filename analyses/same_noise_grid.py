"""The paper's figure 1: images of every model from the same noise, of a store's models or of a cached comparison."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of
from _stored import committed, image_frame, images_of, short

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.plots import frames as comparison_frames
from consistency_lab.plots.gallery import gallery, gallery_rows, grid
from consistency_lab.plots.reading import headline_metric
from consistency_lab.similarity.compare import compare
from consistency_lab.store.results import load_result

COLUMNS = 10  # images of a row
ROWS = 10  # models at most
METRIC = "mse"


def from_result(source: Source) -> Drawn:
    assert source.result is not None
    comparison = load_result(source.result)
    metric = headline_metric(comparison)
    table = comparison_frames.overview(comparison, metric)
    family = table[table["group"] == "family"].iloc[0]
    sentence = (
        f"{comparison.sizes['model']} models draw from the same noise images that score {of(family, 'score')} by {metric} "
        f"(0 = other noise, 1 = same image; {family['interval']})."
    )
    return Drawn({"": (gallery(comparison), table)}, sentence)


def drawn_by(source: Source, rows: list[frames.Row]) -> pd.DataFrame:
    """The images of every family of the rows, by the models of the store: those that the rows are of, and no others."""
    members, parts = {tuple(row["spec"]["models"]): row for row in rows}, []
    for family in source.families():
        if family.identities not in members:
            continue
        found = compare(
            family.models(), SharedNoise(0), count=COLUMNS, metrics=(METRIC,), sampler=Sampler(steps=25), levels=2,
            shown=COLUMNS, ceiling=False,
        )  # fmt: skip
        own = {"row": short(members[family.identities]), "family": family.name}
        parts += [image_frame(pixels, **own, model=name) for name, pixels in gallery_rows(found)]
    missing = len(rows) - len({part["row"].iloc[0] for part in parts})
    if missing:
        raise frames.MissingRows(
            f"the store {source.store} lacks models of {missing} families of the rows; "
            f"`consistency-lab study likeness --preset {source.preset} --store {source.store}` trains them."
        )
    return pd.concat(parts, ignore_index=True)


def sentence(own: pd.DataFrame) -> str:
    """From the rows, of many more samples than are drawn."""
    table = own.assign(**as_columns("score", interval_of(own, f"{METRIC}_score")))
    parts = [f"{row['family']} {of(row, 'score')}" for _, row in table.iterrows()]
    above = (table["score_low"] > 0) & table["diffusion"]
    others = (table["score_low"] > 0) & ~table["diffusion"]
    return (
        f"From the same noise, models of a family draw images that score ({METRIC}; 0 = other noise, 1 = same image): {'; '.join(parts)}; "
        f"above other noise are {above.sum()} of {table['diffusion'].sum()} diffusion families and {others.sum()} of "
        f"{(~table['diffusion']).sum()} GANs and VAEs."
    )


def chosen(table: pd.DataFrame, kinds: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """Images of two models, the least that can be alike, of as many families as `ROWS` has room for; and what is to be said of the rest.

    The first family of every kind comes before others.
    """
    models = {str(family): list(dict.fromkeys(own["model"])) for family, own in table.groupby("family", sort=False)}
    firsts = list({kind: family for family, kind in reversed(kinds.items())}.values())
    shown: list[str] = []
    for family in sorted(models, key=lambda family: family not in firsts):
        shown += models[family][: min(2, ROWS - len(shown))]
    without = [family for family, each in models.items() if not set(each) & set(shown)]
    few = len(shown) < sum(map(len, models.values()))
    said = (
        f" ({len(shown)} of {sum(map(len, models.values()))} models{'; without ' + listed(without) if without else ''})"
        if few
        else ""
    )
    return table[table["model"].isin(shown)], said


def produce(source: Source) -> Drawn:
    if source.result is not None:
        return from_result(source)
    rows = source.rows("likeness")
    those = frames.measured_alike(rows, "family")
    table = committed(source, "same_noise_grid", those) if source.store is None else drawn_by(source, those)
    shown, left = chosen(table, {str(family): source.kind(str(family)) for family in table["family"].unique()})
    lines = [(str(model), images_of(part)) for model, part in shown.groupby("model", sort=False)]
    figure = grid(lines, f"same noise in each column of a family{left}", COLUMNS)
    return Drawn({"": (figure, table)}, sentence(frames.families(rows)))


if __name__ == "__main__":
    main(produce, __file__)
