"""Is the loss of a diffusion model smoother than a GAN's or a VAE's? Lines, barriers and spectra, in numbers without scale."""

from __future__ import annotations

import pandas as pd
from _common import KINDS, Drawn, Source, against, hull, listed, main

from consistency_lab.intervals import interval_names, is_bound
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.dots import dots, over_yardstick
from consistency_lab.paper.why import LINE_SPAN

# (probe, number, words)
NUMBERS = (
    ("line", "relative_curvature", "relative curvature\n(per squared filter norm)"),
    ("line", "roughness", "roughness on ±{:g}\n(share of the line's range)"),
    ("between", "relative_barrier", "relative barrier\n(of the mean loss)"),
    ("curvature", "hessian_relative_trace", "Hessian's relative trace\n(per squared filter norm)"),
    ("curvature", "hessian_relative_top", "its largest eigenvalue\n(relative)"),
)
YARDSTICK = "diffusion"


# Roughness is that of a span; each number stands with its own, and the kinds are held against each other on every span that rows know.
SPAN, ON = "roughness_span", "roughness_on_"


def spread(found: pd.DataFrame, number: str, label: str) -> dict[str, str]:
    """Columns of a number -> their labels: for the roughness one for each span, the widest (the rows' headline) last.

    Rows of before spans were kept know one span, that of the study's lines, and do not say it: their label does.
    """
    if number != "roughness":
        return {number: label}
    shorter = sorted({float(name.removeprefix(ON)) for name in found if name.startswith(ON) and not is_bound(name)})
    known = found[SPAN].dropna() if SPAN in found else pd.Series(dtype=float)
    widest = float(known.iloc[0]) if len(known) else LINE_SPAN
    older = "" if len(known) == len(found) else "\n(older rows: on this span alone)"
    columns = {f"{ON}{span:g}": label.format(span) for span in shorter if span < widest}
    return {**columns, number: label.format(widest) + older}


def said(number: str, label: str) -> str:
    """A number by name, a roughness with its span."""
    return label.split("\n")[0] if number.startswith("roughness") else number.replace("_", " ")


def sentence(table: pd.DataFrame, drawn: dict[str, str]) -> str:
    """For each number: whether all intervals of diffusion models lie on one side of all those of another kind."""
    parts, smoother, told = [], 0, 0
    for number, label in drawn.items():
        ours, verdicts = hull(table, number, "diffusion"), against(table, number)
        if not ours or not verdicts:
            parts.append(f"{said(number, label)} is not known of two kinds")
            continue
        parts.append(f"{said(number, label)} [{ours[0]:.2g}, {ours[1]:.2g}] is {listed(verdicts)}")
        smoother += sum(text.startswith("lower") for text in verdicts)
        told += len(verdicts)
    holds = f"Diffusion models are smoother in {smoother} of {told} comparisons with GANs and VAEs" if told else "Open"
    return f"{holds} (hulls of the intervals over images): {'; '.join(parts)}."


def produce(source: Source) -> Drawn:
    rows, table = source.rows("why"), pd.DataFrame()
    labels: dict[str, str] = {}
    for probe, number, label in NUMBERS:
        try:
            found = frames.probes(rows, probe)
        except frames.MissingRows:
            continue
        found["kind"] = [source.kind(family) for family in found["family"]]
        for column, text in spread(found, number, label).items():
            columns = interval_names(column)
            part = found.set_index(["name", "kind"]).reindex(columns=columns).astype(float)
            table = part if table.empty else table.join(part, how="outer")
            labels[column] = text
    if not labels:
        raise source.missing("why", "there are no lines and spectra in the rows", f"study why --preset {source.preset}")
    table = table.reset_index()
    table.insert(0, "group", table["kind"])
    table = table.sort_values("kind", key=lambda kinds: kinds.map(list(KINDS).index), kind="stable", ignore_index=True)
    scaled = over_yardstick(table, labels, YARDSTICK)
    figure = dots(scaled, f"times the median of {YARDSTICK} models (log scale; less is smoother)")
    return Drawn({"": (figure, table)}, sentence(table, labels))


if __name__ == "__main__":
    main(produce, __file__)
