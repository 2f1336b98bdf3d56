"""Is the loss of a diffusion model smoother than a GAN's or a VAE's? Lines, barriers and spectra, in numbers without scale."""

from __future__ import annotations

import pandas as pd
from _common import KINDS, Drawn, Source, against, hull, listed, main

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import Panel, forest

# (probe, number, label of the axis, logarithmic)
NUMBERS = (
    ("line", "relative_curvature", "relative curvature\n(per squared filter norm;\nlog scale)", True),
    ("line", "roughness", "roughness\n(share of the line's range;\nlog scale)", True),
    ("between", "relative_barrier", "relative barrier\n(of the mean loss; log scale)", True),
    ("curvature", "hessian_relative_trace", "Hessian's relative trace\n(per squared filter norm;\nlog scale)", True),
    ("curvature", "hessian_relative_top", "its largest eigenvalue\n(relative; log scale)", True),
)


def sentence(table: pd.DataFrame, drawn: list[str]) -> str:
    """For each number: whether all intervals of diffusion models lie on one side of all those of another kind."""
    parts, smoother, told = [], 0, 0
    for number in drawn:
        ours, verdicts = hull(table, number, "diffusion"), against(table, number)
        if not ours or not verdicts:
            parts.append(f"{number.replace('_', ' ')} is not known of two kinds")
            continue
        parts.append(f"{number.replace('_', ' ')} [{ours[0]:.2g}, {ours[1]:.2g}] is {listed(verdicts)}")
        smoother += sum(text.startswith("lower") for text in verdicts)
        told += len(verdicts)
    holds = f"Diffusion models are smoother in {smoother} of {told} comparisons with GANs and VAEs" if told else "Open"
    return f"{holds} (hulls of the intervals over images): {'; '.join(parts)}."


def produce(source: Source) -> Drawn:
    rows, table = source.rows("why"), pd.DataFrame()
    panels = []
    for probe, number, label, log in NUMBERS:
        try:
            found = frames.probes(rows, probe)
        except frames.MissingRows:
            continue
        found["kind"] = [source.kind(family) for family in found["family"]]
        columns = [f"{number}{end}" for end in frames.ENDS]
        part = found.set_index(["name", "kind"]).reindex(columns=columns).astype(float)
        table = part if table.empty else table.join(part, how="outer")
        panels.append(Panel(number, label, log=log))
    if not panels:
        raise source.missing("why", "there are no lines and spectra in the rows", f"study why --preset {source.preset}")
    table = table.reset_index()
    table.insert(0, "group", table["kind"])
    table = table.sort_values("kind", key=lambda kinds: kinds.map(list(KINDS).index), kind="stable", ignore_index=True)
    figure = forest(table, panels, width=1.6 + 2.2 * len(panels))
    return Drawn({"": (figure, table)}, sentence(table, [panel.value for panel in panels]))


if __name__ == "__main__":
    main(produce, __file__)
