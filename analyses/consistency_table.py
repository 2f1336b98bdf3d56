"""The paper's table 1 as forests: how alike the models of a family, and of two, are, with their quality; and the families on every set."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from _common import METRICS, PRESETS, Drawn, Source, by_metric, main, of, relation

from consistency_lab.intervals import as_columns, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import Panel, forest

METRIC = METRICS[0]


def sentence(tables: dict[str, pd.DataFrame]) -> str:
    """Is every row of diffusion models above every row of GANs and VAEs? By every metric."""
    return "; ".join(_told(metric, table) for metric, table in tables.items()) + "."


def _told(metric: str, table: pd.DataFrame) -> str:
    """By the ends of the intervals that are nearest."""
    diffusion = table[table["group"].isin(frames.GROUPS[:2])]
    others = table[table["group"].isin(frames.GROUPS[2:4])]
    if diffusion.empty or others.empty:
        missing = "diffusion" if diffusion.empty else "GAN and VAE"
        return (
            f"The claim that diffusion models are more alike than GANs and VAEs is open: no {missing} row is finished"
        )
    low, high = diffusion.loc[diffusion["score"].idxmin()], others.loc[others["score"].idxmax()]
    worst, best = diffusion["score_low"].min(), others["score_high"].max()
    if worst > best:
        verdict = "every diffusion row lies above every GAN and VAE row, and no intervals overlap"
    elif low["score"] > high["score"]:
        verdict = "every diffusion row lies above every GAN and VAE row, but some intervals overlap"
    else:
        above = (others["score"] >= low["score"]).sum()
        verdict = f"the claim fails: {above} of {len(others)} GAN and VAE rows reach the lowest diffusion row"
    unfit, fit = others[others["fit"].eq(False)], others[~others["fit"].eq(False)]
    straw = ""
    if len(unfit):
        best_fit = (
            f"the highest of the others is {fit.iloc[0]['name']} {of(fit.iloc[0], 'score')}"
            if len(fit)
            else "none is left"
        )
        straw = f"; without {', '.join(unfit['name'])}, whose images are too poor to be evidence, {best_fit}"
    return (
        f"Lowest of {len(diffusion)} diffusion rows: {low['name']} {of(low, 'score')}; highest of {len(others)} GAN and VAE rows: "
        f"{high['name']} {of(high, 'score')} ({metric}); {verdict}{straw}"
    )


def over_sets(source: Source) -> pd.DataFrame:
    """The families of every preset that has rows: ``group`` (the family), ``name`` (the preset), ``kind`` and the score with its ends."""
    parts = []
    for preset in PRESETS:
        try:
            own = frames.families(replace(source, preset=preset).rows("likeness"))
        except frames.MissingRows:
            continue
        scores = as_columns("score", interval_of(own, f"{METRIC}_score"))
        facts = {"group": own["family"], "name": preset, "diffusion": own["diffusion"], "fit": own["fit"]}
        parts.append(pd.DataFrame({**facts, **scores}))
    table = pd.concat(parts, ignore_index=True)
    order = {family: i for i, family in enumerate(dict.fromkeys(table["group"]))}
    return table.sort_values("group", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def across(table: pd.DataFrame) -> str:
    """Of each diffusion family that is on several sets: whether its intervals there are apart."""
    parts = []
    for family, own in table[table["diffusion"]].groupby("group", sort=False):
        if len(own) > 1:
            ordered = own.sort_values("score", ascending=False, kind="stable")
            first, last = ordered.iloc[0], ordered.iloc[-1]
            parts.append(
                f"{family} {first['name']} {of(first, 'score')} {relation(first, last, 'score')} {last['name']} {of(last, 'score')}"
            )
    return "; over sets: " + "; ".join(parts) if parts else ""


def produce(source: Source) -> Drawn:
    rows = source.rows("likeness")
    tables, own = by_metric(rows), frames.families(rows)
    table = tables[METRIC]
    panels = [
        Panel(
            "score", f"consistency score, {METRIC} (no unit)", lines={"other noise (null)": 0.0}, limits=(-0.08, 1.02)
        )
    ]
    panels[0] = Panel(**{**vars(panels[0]), "limits": (min(-0.08, table["score_low"].min() - 0.03), 1.02)})
    if table["frechet"].notna().any():
        found = own[own["frechet"].notna()].iloc[-1]
        lines = {
            name: float(found[f"frechet_{key}"]) for name, key in (("real images", "floor"), ("Gaussian", "gaussian"))
        }
        panels.append(
            Panel(
                "frechet",
                "Frechet distance\n(classifier features, no unit;\nlog scale, lower is better)",
                lines=lines,
                log=True,
            )
        )
    sets = over_sets(source)
    figures = {"": (forest(table, panels), table)}
    if sets["name"].nunique() > 1:
        figures["sets"] = (forest(sets, panels[:1]), sets)
    return Drawn(figures, sentence(tables).removesuffix(".") + across(sets) + ".")


if __name__ == "__main__":
    main(produce, __file__)
