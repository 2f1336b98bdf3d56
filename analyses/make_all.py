"""Every figure of a preset whose rows are there; a line for each that is skipped, with the command that makes its rows."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from _common import add_options, finish, source_of

from consistency_lab.errors import UserError
from consistency_lab.plots.study_frames import MissingRows

SCRIPTS = (
    *(
        "consistency_table",
        "similarity_along_t",
        "parametrisation",
        "streams",
        "memorisation_sweep",
        "emergence",
        "origins",
    ),
    *("smoothness", "difficulty_definitions", "structure", "connectivity"),
    *("quality_vs_iterations", "center_ablation", "final_table", "same_noise_grid"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    add_options(parser)
    given = parser.parse_args(arguments)
    source, failed = source_of(given), []
    for name in SCRIPTS:
        if name == "same_noise_grid" and source.store is None and source.result is None:
            print(f"{name}: skipped; it needs --store or --result")
            continue
        try:
            drawn = importlib.import_module(name).produce(source)
            print(f"{name}: ", end="")
            finish(drawn, name, given.out or given.rows / given.preset)
        except MissingRows as missing:
            print(f"{name}: skipped; {missing}", flush=True)
        except UserError as error:
            failed.append(name)
            print(f"{name}: failed; {error}", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
