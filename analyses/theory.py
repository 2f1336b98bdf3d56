"""Models of disjoint sets beside what linear denoisers of such sets would do in theory, and what closed-form denoisers explain of them."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of, sweeps

from consistency_lab.data.sources import load_images
from consistency_lab.intervals import Interval, as_columns, as_value, interval_of
from consistency_lab.paper.plots.studies import curves
from consistency_lab.paper.sizes import REFERENCES
from consistency_lab.plots.reading import REFERENCE_NAMES
from consistency_lab.presets import sizes_plan
from consistency_lab.similarity.prediction import OWN, predict_consistency

THEORY = "linear, in theory"
PANELS = {"score": "score across disjoint\nsets, mse (no unit)", "set": "1 − score that is owed\nto the set (no unit)"}


def beside_theory(source: Source) -> dict[str, pd.DataFrame]:
    """`sweeps` with ``predicted`` in every row, and ``set``: by how much less models of two sets agree than those of one.

    ``predicted_set`` is what linear denoisers, which owe nothing to their own chance, have of that.
    """
    found = {}
    for network, wide in sweeps(source.rows("sizes")).items():
        if "predicted" not in wide or wide["predicted"].isna().any():
            wide = wide.assign(**as_columns("predicted", _predicted(wide, source)))
        within, between, theory = (interval_of(wide, key) for key in ("within", "between", "predicted"))
        # Of one comparison, and not independent: the widest that both allow.
        apart = Interval(within.estimate - between.estimate, within.low - between.high, within.high - between.low)
        in_theory = Interval(1 - theory.estimate, 1 - theory.high, 1 - theory.low)
        found[network] = wide.assign(**as_columns("set", apart), **as_columns("predicted_set", in_theory))
    return found


def _predicted(wide: pd.DataFrame, source: Source) -> Interval:
    """For rows that were made before theirs held it: of the preset's images. Raises `MissingRows` where these are others."""
    images = load_images(sizes_plan(source.preset).data, data_dir=source.data_dir)
    if set(wide["data"]) != {images.fingerprint}:
        raise source.missing(
            "sizes", "the rows hold no prediction and are of other images", f"study sizes --preset {source.preset}"
        )
    theory = predict_consistency(images, wide["size"].astype(int).tolist(), times=[0.0], count=0)
    return interval_of(theory.sel(states=OWN).isel(t=0), "score")


def verdict(wide: pd.DataFrame, column: str, theory: str) -> str:
    """At which sizes an interval lies above that of the theory, below it, or overlaps it: ``above it at 8, below it at 32 and 128``."""
    (_, low, high), (_, least, most) = interval_of(wide, column), interval_of(wide, theory)
    texts = []
    for said, where in (
        ("above it", low > most),
        ("below it", high < least),
        ("not told from it", (low <= most) & (least <= high)),
    ):
        sizes = [f"{size:.0f}" for size in wide.loc[where, "size"]]
        if sizes:
            texts.append(f"{said} at {'every size' if len(sizes) == len(wide) and len(wide) > 1 else listed(sizes)}")
    return ", ".join(texts) or "without an interval"


def sentence(every: dict[str, pd.DataFrame]) -> str:
    parts = []
    for network, wide in every.items():
        small, large = wide.iloc[0], wide.iloc[-1]
        ends = f"{small['size']:.0f} to {large['size']:.0f} images"
        parts.append(
            f"{network} across disjoint sets of {ends} score {of(small, 'between')} to {of(large, 'between')}, linear denoisers in theory "
            f"{of(small, 'predicted')} to {of(large, 'predicted')}: {verdict(wide, 'between', 'predicted')}"
        )
        parts.append(
            f"what of 1 − score is owed to the set, not to the models' own chance, is {of(small, 'set')} to {of(large, 'set')}, in theory "
            f"{of(small, 'predicted_set')} to {of(large, 'predicted_set')}: {verdict(wide, 'set', 'predicted_set')}"
        )
        known = [name for name in REFERENCES if f"explained_{name}" in wide and pd.notna(large[f"explained_{name}"])]
        if known:
            shares = listed(f"{_reference(name)} {of(large, f'explained_{name}')}" for name in known)
            parts.append(
                f"of their agreement at {large['size']:.0f} images closed forms of their own sets explain: {shares}"
            )
    return "; ".join(parts) + "."


def _reference(name: str) -> str:
    return REFERENCE_NAMES.get(name, f"{name} denoiser")


def produce(source: Source) -> Drawn:
    every, parts, labels = beside_theory(source), [], dict(PANELS)

    def line(panel: str, name: str, wide: pd.DataFrame, column: str) -> None:
        values = as_value(interval_of(wide, column))
        parts.append(pd.DataFrame({"panel": panel, "name": name, "size": wide["size"], **values}))

    known = pd.concat(every.values()).drop_duplicates("size").sort_values("size", ignore_index=True)
    line("score", THEORY, known, "predicted")
    line("set", THEORY, known, "predicted_set")
    for network, wide in every.items():
        line("score", network, wide, "between")
        line("set", network, wide, "set")
    for network, wide in every.items():
        for name in REFERENCES:
            if f"explained_{name}" in wide:
                panel = f"explained, {network}"
                labels[panel] = f"share of agreement that\nis explained, {network}"
                line(panel, _reference(name), wide, f"explained_{name}")
    table = pd.concat(parts, ignore_index=True)
    figure = curves(table, "size", "images in the training set (log scale)", labels, logx=True, height=2.2)
    return Drawn({"": (figure, table)}, sentence(every))


if __name__ == "__main__":
    main(produce, __file__)
