"""Is the loss of a diffusion model smoother than a GAN's or a VAE's? Lines, barriers and spectra, in numbers without scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import Drawn, Source, listed, main

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
    """For each number: whether all intervals of diffusion models lie on one side of all those of the others."""
    parts, kinds = [], table["diffusion"].astype(bool)
    for number in drawn:
        ours, theirs = (table[chosen].dropna(subset=[number, f"{number}_low"]) for chosen in (kinds, ~kinds))
        if ours.empty or theirs.empty:
            parts.append(f"{number.replace('_', ' ')} is not known of both kinds")
            continue
        (a, b), (c, d) = ((each[f"{number}_low"].min(), each[f"{number}_high"].max()) for each in (ours, theirs))
        verdict = "lower for all" if b < c else "higher for all" if a > d else "not separated from"
        joint = "" if verdict.startswith("not") else " against"
        parts.append(f"{number.replace('_', ' ')} [{a:.2g}, {b:.2g}] is {verdict}{joint} [{c:.2g}, {d:.2g}]")
    return "Diffusion models against GANs and VAEs (hulls of the intervals): " + listed(parts) + "."


def produce(source: Source) -> Drawn:
    rows, table = source.rows("why"), pd.DataFrame()
    panels = []
    for probe, number, label, log in NUMBERS:
        try:
            found = frames.probes(rows, probe)
        except frames.MissingRows:
            continue
        found["diffusion"] = [source.is_diffusion(family) for family in found["family"]]
        columns = [f"{number}{end}" for end in frames.ENDS]
        part = found.set_index(["name", "diffusion"]).reindex(columns=columns).astype(float)
        table = part if table.empty else table.join(part, how="outer")
        panels.append(Panel(number, label, log=log))
    if not panels:
        raise source.missing("why", "there are no lines and spectra in the rows", f"study why --preset {source.preset}")
    table = table.reset_index()
    table.insert(0, "group", np.where(table["diffusion"], "diffusion", "GAN, VAE"))
    table = table.sort_values("diffusion", ascending=False, kind="stable", ignore_index=True)
    figure = forest(table, panels, width=1.6 + 2.0 * len(panels))
    return Drawn({"": (figure, table)}, sentence(table, [panel.value for panel in panels]))


if __name__ == "__main__":
    main(produce, __file__)
