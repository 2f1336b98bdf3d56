"""At which noise level the image is known, decided by the model, and decided by the noise."""

from __future__ import annotations

import pandas as pd
from _common import Drawn, Source, listed, main, of

from consistency_lab.plots import study_frames as frames
from consistency_lab.plots.studies import Panel, forest

TIMES = {
    "half_known_t": "half of the image known",
    "handoff_t": "model handed over",
    "swap_t": "noise exchanged",
}


def sentence(table: pd.DataFrame) -> str:
    parts = []
    for group, part in table.groupby("group", sort=False):
        known = part.dropna(subset=["t"])
        if known.empty:
            parts.append(f"{group}: at no time in the range")
            continue
        parts.append(f"{group}: " + listed(f"{row['name']} t = {of(row, 't', 2)}" for _, row in known.iterrows()))
    return (
        "On the way from noise (t = 1) to data the estimate explains half of the final image, or an image from a run that changed its "
        "model or its noise is as near to the one as to the other, at: " + "; ".join(parts) + "."
    )


def produce(source: Source) -> Drawn:
    found, parts = frames.probes(source.rows("why"), "structure"), []
    for key, text in TIMES.items():
        columns = {f"t{end}": found[f"{key}{end}"].astype(float) for end in frames.ENDS}
        parts.append(pd.DataFrame({"group": text, "name": found["name"], **columns}))
    table = pd.concat(parts, ignore_index=True)
    # Noise at the left, as on every axis of time.
    figure = forest(
        table, [Panel("t", "time t at which the two sides are even  (1 = noise, 0 = data)", limits=(1.0, 0.0))]
    )
    return Drawn({"": (figure, table)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
