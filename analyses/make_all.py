"""Every figure of a preset whose rows are there; a line for each that is skipped, with the command that makes its rows."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace

from _common import add_options, finish, palette, source_of

from consistency_lab.errors import UserError
from consistency_lab.paper.plots.frames import MissingRows
from consistency_lab.plots.look import look

SCRIPTS = (
    *("same_noise_grid", "consistency_table", "controls", "similarity_along_t", "parametrisation", "streams"),
    *("memorisation_sweep", "theory", "emergence", "origins", "sampling", "guidance", "shipped"),
    *("interpolation", "hessian_spectra", "smoothness", "connectivity"),
    *("structure", "handoff", "bands", "difficulty_definitions"),
    *("race", "speedup_curve", "quality_vs_iterations", "center_ablation", "final_table", "what_is_learnt"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    add_options(parser)
    given = parser.parse_args(arguments)
    source, failed = source_of(given), []
    for name in SCRIPTS:
        try:
            own = replace(source, notes={})
            with look(given.style, given.width, palette(given.palette)):
                drawn = importlib.import_module(name).produce(own)
                print(f"{name}: ", end="")
                finish(drawn, name, given.out or given.rows / given.preset, list(own.notes))
        except MissingRows as missing:
            print(f"{name}: skipped; {missing}", flush=True)
        except UserError as error:
            failed.append(name)
            print(f"{name}: failed; {error}", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
